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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Self

import structlog

from worker.beat import NOTHING, Chores, beat
from worker.connection import Connection, Pace, Patience, backoff, connect, register
from worker.database import DATABASE_ERRORS, is_transient
from worker.fence import Fence, now
from worker.judge import Judge
from worker.way import Way, as_way

BEAT_SECONDS = 5.0  # a beat that takes longer has gone astray, however slow the way is
ANSWER_SECONDS = 3.0
AGAIN_SECONDS = 1.5  # most, between attempts to connect

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds of the lease's life: beat < fence < missing < lease."""

    beat: float
    fence: float
    missing: float
    lease: float

    def behind_a_pooler(self) -> Self:
        """Nobody sees our session there, and others judge by the lease alone: the fence may wait for most of it."""
        return replace(self, fence=self.lease * 2 / 3)


@dataclass(frozen=True, slots=True)
class Events:
    """What the lease tells the service; each is called in the service's loop."""

    stops: Callable[[list[int]], None]
    fenced: Callable[[], None]
    confirmed: Callable[[], None]
    suspect: Callable[[int], None]
    chores: Callable[[Chores], None]
    dead: Callable[[], None]


class Lease:
    """One process's lease.

    Args:
        way: past any pooler where there is such a way; behind one in transaction mode no session shows that we live.

    Attributes:
        open_batch: gives the lowest claim call still held; called from the thread.
        me: the process's id, once registered.
    """

    def __init__(
        self,
        way: Way | str,
        terms: Terms,
        events: Events,
        *,
        version: str,
        types: list[str],
        slots: int,
        schedules: Sequence[str] = (),
    ) -> None:
        self._way = as_way(way)
        self._terms = terms if self._way.keeps else terms.behind_a_pooler()
        self._judge = Judge(terms.missing, pooled=not self._way.keeps)
        # A beat that went astray is to be found early enough for another one before the fence.
        most = min(self._terms.fence * 0.9, BEAT_SECONDS)
        self._pace = Pace((self._terms.fence - terms.beat) / 2, most)
        self._patience = Patience(most)
        self._about = (version, types, slots)
        self._schedules = schedules
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._registered: asyncio.Future[int] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._stopping = threading.Event()
        self._fence = Fence(self._terms.fence, lambda: self._tell(events.fenced))
        self._failing = self._dead = False
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
        return not self._dead and self._fence.age <= self._terms.fence

    @property
    def answered(self) -> bool:
        """True while the database answers; the fence may be too long to tell."""
        return self.held and self._fence.age <= max(ANSWER_SECONDS, 3 * self._terms.beat)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except Exception as error:  # a thread's own end must be the process's, loudly
            _log.error("lease.crashed", error=f"{type(error).__name__}: {error}")
            self._tell(self._events.dead)

    async def _live(self) -> None:
        self._fence.begin()
        connection: Connection | None = None
        failures = 0
        try:
            while not self._stopping.is_set() and not self._dead:
                self._fence.awake()
                connection = await self._turn(connection)
                failures = 0 if connection else failures + 1
                await asyncio.sleep(self._pause(failures))
        finally:
            self._fence.end()
            if connection is not None:
                with suppress(*DATABASE_ERRORS):
                    await connection.close(timeout=1)

    def _pause(self, failures: int) -> float:
        # Back well before others call us missing, and not all of a fleet at once.
        return backoff(failures, min(AGAIN_SECONDS, self._terms.missing / 2)) if failures else self._terms.beat

    async def _turn(self, connection: Connection | None) -> Connection | None:
        try:
            if connection is None:
                async with self._patience.attempt():
                    connection = await self._connect()
            async with self._pace.answer():
                await self._beat(connection)
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
            self._loop.call_soon_threadsafe(_end, self._registered, 0, error)
            self._stopping.set()

    async def _connect(self) -> Connection:
        connection = await connect(self._way, "beat", statement_timeout="5s")
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
                "select worker.register($1, $2, $3, $4, $5, $6, $7)",
                socket.gethostname(), os.getpid(), version, types, slots, lease, not self._way.keeps,
            )  # fmt: skip
        if self._way.keeps:
            await register(connection, self.me, "beat")
        self._judge.begin(now())

    async def _beat(self, connection: Connection) -> None:
        sent = now()
        told = await beat(connection, self.me, self.open_batch(), self._about[1], self._schedules)
        if not told.alive:
            self._dead = True
            self._tell(self._events.dead)
            return
        fenced = self._fence.confirm(sent)
        if not self._registered.done():
            self._loop.call_soon_threadsafe(_end, self._registered, self.me)
        if fenced:
            self._tell(self._events.confirmed)
        if told.stops:  # every time: the claim that it stops may not have been answered yet
            self._tell(self._events.stops, told.stops)
        for process in self._judge.gone(told.suspects, now()):
            self._tell(self._events.suspect, process)
        if told.chores is not None and told.chores != NOTHING:
            self._tell(self._events.chores, told.chores)

    def _tell(self, event: Callable[..., None], *about: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(event, *about)


def _end(future: "asyncio.Future[int]", me: int, error: BaseException | None = None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(me)
    else:
        future.set_exception(error)
