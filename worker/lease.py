"""The process lease, beaten from a thread of its own with a loop and a connection of its own.

A blocked event loop must not lose the lease, and a lost connection must not keep jobs running beside their second copy:
without a confirmed beat for `fence` seconds the process stops its own jobs, and only after `missing` seconds, which are
more, do others declare it dead. It judges others only by what this one session has seen without a break, so that an
outage of the database makes nobody dead.
"""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import structlog

from worker.database import DATABASE_ERRORS, Connection, connect, is_transient, register

YOUNG_SECONDS = 5.0  # a session younger than this says nothing about lapsed leases
WATCH_SECONDS = 0.1
ASK_SECONDS = 0.5

_log = structlog.get_logger()
# CLOCK_BOOTTIME goes on while the machine sleeps; where it is missing, monotonic time is the next best.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _now() -> float:
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds of the lease's life: beat < fence < missing < lease."""

    beat: float
    fence: float
    missing: float
    lease: float


@dataclass(frozen=True, slots=True)
class Events:
    """What the lease tells the service; each is called in the service's loop."""

    stops: Callable[[list[int]], None]
    fenced: Callable[[], None]
    confirmed: Callable[[], None]
    suspect: Callable[[int], None]
    dead: Callable[[], None]


class Lease:
    """One process's lease.

    Args:
        url: a direct or session connection.

    Attributes:
        open_batch: gives the lowest claim call still held; called from the thread.
        me: the process's id, once registered.
    """

    def __init__(self, url: str, terms: Terms, events: Events, *, version: str, types: list[str], slots: int) -> None:
        self._url = url
        self._terms = terms
        self._about = (version, types, slots)
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._registered: asyncio.Future[int] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._stopping = threading.Event()
        self._confirmed = _now()
        self._fenced = False
        self._failing = False
        self._dead = False
        self._seen_missing: dict[int, float] = {}
        self._seen_lapsed: dict[int, float] = {}
        self._session_at = _now()
        self.open_batch: Callable[[], int] = lambda: 0
        self.me = 0

    async def start(self) -> int:
        """Register the process and begin to beat; answers with its id."""
        self._thread.start()
        self.me = await self._registered
        return self.me

    async def stop(self) -> None:
        """Stop beating; the last thing a process does."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, 5)

    @property
    def held(self) -> bool:
        """True while a beat was confirmed within `fence` seconds; outside effects ask this inline."""
        return not self._dead and _now() - self._confirmed <= self._terms.fence

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:  # a thread's own end must be the process's, loudly
            _log.error("lease.crashed", error=f"{type(error).__name__}: {error}")
            self._tell(self._events.dead)

    async def _live(self) -> None:
        watcher = asyncio.create_task(self._watch())
        connection: Connection | None = None
        try:
            while not self._stopping.is_set() and not self._dead:
                connection = await self._turn(connection)
                await asyncio.sleep(self._terms.beat)
        finally:
            watcher.cancel()
            if connection is not None:
                with suppress(*DATABASE_ERRORS):
                    await connection.close(timeout=1)

    async def _turn(self, connection: Connection | None) -> Connection | None:
        try:
            async with asyncio.timeout(self._terms.fence * 0.9):
                connection = connection or await self._connect()
                await self._beat(connection)
                await self._judge(connection)
        except DATABASE_ERRORS as error:
            self._missed(error)
            if connection is not None:
                connection.terminate()
            return None
        self._failing = False
        return connection

    def _missed(self, error: BaseException) -> None:
        if not self._failing:
            _log.warning("lease.beat_missed", error=type(error).__name__, sqlstate=getattr(error, "sqlstate", None))
        self._failing = True
        if not self._registered.done() and not is_transient(error):
            self._loop.call_soon_threadsafe(_fail, self._registered, error)
            self._stopping.set()

    async def _connect(self) -> Connection:
        connection = await connect(self._url, "beat", statement_timeout="5s")
        try:
            await self._enter(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _enter(self, connection: Connection) -> None:
        if self.me == 0:
            version, types, slots = self._about
            lease = timedelta(seconds=self._terms.lease)
            self.me = await connection.fetchval(
                "select worker.register($1, $2, $3, $4, $5, $6)",
                socket.gethostname(), os.getpid(), version, types, slots, lease,
            )  # fmt: skip
        await register(connection, self.me, "beat")
        self._session_at = _now()
        self._seen_missing.clear()
        self._seen_lapsed.clear()

    async def _beat(self, connection: Connection) -> None:
        sent = _now()
        row = await connection.fetchrow("select * from worker.beat($1, $2)", self.me, self.open_batch())
        assert row is not None
        if not row["alive"]:
            self._dead = True
            self._tell(self._events.dead)
            return
        self._confirmed = sent  # counted from when it was sent: until then the session was there for all to see
        if not self._registered.done():
            self._loop.call_soon_threadsafe(_succeed, self._registered, self.me)
        if self._fenced:
            self._fenced = False
            self._tell(self._events.confirmed)
        if row["stops"]:  # every time: the claim that it stops may not have been answered yet
            self._tell(self._events.stops, row["stops"])

    async def _judge(self, connection: Connection) -> None:
        for row in await connection.fetch("select * from worker.suspects($1)", self.me):
            if self._gone(row):
                self._tell(self._events.suspect, row["id"])

    def _gone(self, row: asyncpg.Record) -> bool:
        now = _now()
        missing = _since(self._seen_missing, row["id"], row["missing"], now)
        # The server's clock may jump; whoever lives then renews its lease at its next beat, which is waited for.
        lapsed = _since(self._seen_lapsed, row["id"], row["lapsed"], now)
        unbroken = now - self._session_at
        return missing >= self._terms.missing or (lapsed >= self._terms.missing and unbroken >= YOUNG_SECONDS)

    async def _watch(self) -> None:
        """Fence ourselves in time, also while a connection attempt hangs."""
        looked = _now()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            stalled, looked = _now() - looked > self._terms.fence, _now()
            if stalled:
                await asyncio.sleep(ASK_SECONDS)  # we slept, not the database: let the beat ask first
            if not self._fenced and _now() - self._confirmed > self._terms.fence:
                self._fenced = True
                self._tell(self._events.fenced)

    def _tell(self, event: Callable[..., None], *about: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(event, *about)


def _since(seen: dict[int, float], process: int, true: bool, now: float) -> float:
    """Seconds for which something was seen of a process without a break."""
    if not true:
        seen.pop(process, None)
        return 0.0
    return now - seen.setdefault(process, now)


def _succeed(future: "asyncio.Future[int]", me: int) -> None:
    if not future.done():
        future.set_result(me)


def _fail(future: "asyncio.Future[int]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
