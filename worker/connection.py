"""One connection: what is set on it, what is undone after a stranger used it, and whose it is."""

import asyncio
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any

import asyncpg

from worker import reset
from worker.way import CONNECT_SECONDS, Pooler, Way, as_way

CALL_SECONDS = 10.0  # deadline of one control call, at first
CONTROL_SECONDS = 30.0  # and at most

# A dead way is noticed though nothing is said on it, and what was sent must have arrived within 10 s.
_KEEPALIVES = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}


Told = Callable[[list[str]], None]


class Connection(asyncpg.Connection):
    """An asyncpg connection that knows its backend's identity: the pid alone may be used again by another."""

    backend_start: datetime | None = None
    _limit: int | None = None
    _told: Told | None = None
    _locks = False
    _direct = True
    _afterwards: Mapping[str, str] = {}

    async def prepare_for(self, way: Way, settings: Mapping[str, str]) -> None:
        """Make it what it is to be on this way; once, before anything else."""
        keep_alive(self._transport.get_extra_info("socket"))  # type: ignore[attr-defined] # the driver's own
        self._direct = way.pooler is Pooler.NONE
        self._afterwards = way.afterwards(settings)
        if not way.keeps:
            # The driver would switch jit off while it looks up types, and on again for whoever comes next.
            self._server_caps = self._server_caps._replace(jit=False)  # type: ignore[has-type]
        await self._set_afterwards()

    def lend(self, told: Told, locks: bool = True) -> None:
        """Lent out: `told` is called with the kinds of what was left behind, if anything was, when it is given back.

        Args:
            locks: whether advisory locks are looked for.
        """
        self._told, self._locks = told, locks

    async def limit(self, seconds: float) -> None:
        """Set the server's statement timeout for what follows; sent only when it differs from the last one."""
        milliseconds = max(int(seconds * 1000), 1)
        if self._limit != milliseconds:
            self._limit = None  # unknown, if this fails
            await self.execute(
                "select set_config('statement_timeout', $1, false)", str(milliseconds), timeout=CONNECT_SECONDS
            )
            self._limit = milliseconds

    async def restore(self) -> None:
        """Undo everything a stranger's function may have left behind."""
        told, locks = self._told, self._locks
        self._told, self._locks = None, False
        left: list[str] = []
        try:
            left = await reset.undo(self, locks, self._limit)
            await self._set_afterwards()
        except asyncpg.InvalidSQLStatementNameError:
            left = ["deallocated"]
            raise
        finally:
            if left and told is not None:
                told(left)

    def get_reset_query(self) -> str:
        """What the pool does after our own calls. It would undo what was set afterwards, or what strangers set."""
        return str(super().get_reset_query()) if self._direct else ""

    async def _set_afterwards(self) -> None:
        if self._afterwards:
            await self.execute(
                "select pg_catalog.set_config(n, v, false)"
                " from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as s (n, v)",
                list(self._afterwards), list(self._afterwards.values()), timeout=CONNECT_SECONDS,
            )  # fmt: skip


async def connect(address: Way | str, duty: str, **settings: str) -> Connection:
    """One connection outside the pools, with the settings every connection has; each call on it has a deadline.

    Args:
        address: a plain one may lead through any pooler: nothing is relied upon, and what it refuses is left out.
    """
    if isinstance(address, Way):
        return await _connected(address, duty, settings)
    try:
        return await _connected(as_way(address), duty, settings, statement_cache_size=0)
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" not in str(error):
            raise
    return await _connected(Way(address, Pooler.TRANSACTION), duty, settings)


async def _connected(way: Way, duty: str, settings: Mapping[str, str], **more: Any) -> Connection:
    given = way.arguments(duty, settings) | more
    connection = await asyncpg.connect(**given, command_timeout=CONTROL_SECONDS, connection_class=Connection)
    assert isinstance(connection, Connection)
    try:
        await connection.prepare_for(way, settings)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def register(connection: Connection, me: int, duty: str) -> None:
    """Enter the connection's (pid, backend_start) under this process."""
    row = await connection.fetchrow("select * from worker.register_backend($1, $2)", me, duty, timeout=CONTROL_SECONDS)
    assert row is not None
    connection.backend_start = row["backend_start"]


def keep_alive(given: Any) -> None:
    """Let the kernel find out when the other side is gone; where it can, and where there is a network at all."""
    if given is None or given.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError), socket.socket(fileno=os.dup(given.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVES.items():
            if option := getattr(socket, name, None):
                same.setsockopt(socket.IPPROTO_TCP, option, value)


class Patience:
    """How long something may take: more, when it was too little for the round trips of a slow way.

    Args:
        most: seconds, however often it was too little.
    """

    def __init__(self, least: float, most: float = CONNECT_SECONDS) -> None:
        self._least = self._seconds = least
        self._most = most

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """One attempt to connect; raises TimeoutError when it took too long."""
        with self.learning() as seconds:
            async with asyncio.timeout(seconds):
                yield

    @contextmanager
    def learning(self) -> Iterator[float]:
        """One attempt that keeps to the seconds itself, or raises TimeoutError."""
        began = time.monotonic()
        try:
            yield self._seconds
        except TimeoutError:
            self._seconds = min(self._seconds * 2, self._most)
            raise
        self._seconds = min(max(self._least, 2 * (time.monotonic() - began)), self._most)


class Pace:
    """How long an answer may take before it counts as gone astray: three times as long as the slowest of late.

    Args:
        least: seconds, on a way that is fast.
        most: seconds, on any way.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = max(least, 0.25), most  # a busy machine takes its time
        self._slowest = 0.0

    @asynccontextmanager
    async def answer(self) -> AsyncIterator[None]:
        """One answer; raises TimeoutError when it went astray."""
        began = time.monotonic()
        async with asyncio.timeout(min(max(self._least, 3 * self._slowest), self._most)):
            yield
        self._slowest = max(time.monotonic() - began, self._slowest * 0.98)


def backoff(failures: int, most: float) -> float:
    """Seconds until the next attempt: doubled with each failure up to `most`, and jittered."""
    return float(min(0.05 * 2 ** min(failures, 16), most) * random.uniform(0.5, 1.0))
