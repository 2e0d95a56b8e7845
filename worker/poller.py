"""Claims up to the free slots, holds what runs, interrupts one, and drains."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

import asyncpg
import structlog

from worker.attempt import End
from worker.bell import Bell
from worker.database import DATABASE_ERRORS, is_transient
from worker.errors import Interrupted, JobError
from worker.executor import Executor
from worker.job import Job
from worker.job_queue import Claimed, JobQueue
from worker.lane import Lane
from worker.metrics import Metrics
from worker.onset import Onset

BATCH = 500
RELEASE_SECONDS = 10.0
FENCED_SECONDS = 1.0  # the same while no beat is confirmed: nothing can be handed back

_log = structlog.get_logger()


class Poller:
    """The claim loop.

    Args:
        concurrency: jobs that run at once.
        prefetch: jobs claimed beyond that, never more than finished lately: a long job must not wait here behind
            another while a neighbour is free.
        graphs: the types of kind `steps`, of which no more run at once than there are `connections`.
        limited: types whose end frees a slot for another of their kind.
        fair: types whose tenants take turns. Of these and of limited ones none is claimed ahead: whose turn comes would
            wait here behind a stock of others, and a slot would be held by who only waits.
    """

    def __init__(
        self,
        queue: JobQueue,
        executor: Executor,
        bell: Bell,
        metrics: Metrics,
        *,
        concurrency: int,
        prefetch: int,
        graphs: Collection[str] = (),
        connections: int | None = None,
        limited: Collection[str] = (),
        fair: Collection[str] = (),
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._bell = bell
        self._metrics = metrics
        self._names = frozenset(graphs)
        self._limited = frozenset(limited)
        self._gated = self._limited | frozenset(fair)
        self._all = Lane(concurrency, prefetch)
        self._graphs = Lane(concurrency if connections is None else min(connections, concurrency), prefetch)
        self._cut = False  # the last look did not ask for all there may be
        self.in_hand = 0  # jobs claimed and not yet settled, a coalesced call as one
        self.begun = Onset()
        self._answers, self._flood = Onset(), asyncio.Event()
        self._changed, self._gate = asyncio.Event(), asyncio.Event()
        self._gate.set()
        metrics.running.set_function(lambda: self.in_hand)
        self.looked_at = time.monotonic()
        self.refused_at = float("-inf")  # when the server answered a claim with an error

    @property
    def slots(self) -> int:
        """Jobs that can run at once."""
        return (self._all if self._others() else self._graphs).size

    async def run(self) -> None:
        """Claim, for ever; cancelled to stop."""
        beside = asyncio.create_task(self._beside())
        beside.add_done_callback(lambda task: self._bell.ring())
        try:
            await self._along(beside)
        finally:
            beside.cancel()
            await asyncio.wait({beside})

    async def _along(self, beside: "asyncio.Task[None]") -> None:
        failures = 0
        while not beside.done():
            try:
                room = min(await self.room(), BATCH)
                self._bell.clear()
                looked = await self.look(room)
                failures = 0
                if len(looked.jobs) >= room:
                    self._flood.set()
                    await self._bell.off()
                elif not looked.parked and not self._cut:
                    await self._bell.rest(looked)
            except DATABASE_ERRORS as error:
                failures += 1
                await self._failed(error, failures)
        await beside

    async def _beside(self) -> None:
        """While whole batches come, a second claim on its way: made ready while jobs of the first begin."""
        while True:
            await self._flood.wait()
            self._flood.clear()
            if not self._gate.is_set() or self._room() < BATCH:
                continue
            try:
                if len((await self._claim(BATCH, self._others() if self._names else None)).jobs) >= BATCH:
                    self._flood.set()
            except DATABASE_ERRORS as error:  # which the other lane meets as well, and says so
                self._metrics.database_error(error)
            self._bell.ring()  # what this one held on its way, the other one passed over

    async def look(self, room: int) -> Claimed:
        """One look for up to `room` jobs, started; of graphs no more than may run, and some in stock."""
        narrow = min(room, self._graphs.room()) if self._names else room
        self._cut = False
        if narrow >= room:
            return await self._claim(room)
        if narrow <= 0:
            return await self._claim(room, self._others())
        some = await self._claim(narrow)
        left = room - len(some.jobs)
        if len(some.jobs) < narrow or left <= 0 or not self._gate.is_set():
            return some
        more = await self._claim(left, self._others())
        self._cut = self._graphs.room() > 0  # the first claim ended at its bound, so more graphs may be due
        return replace(more, jobs=[*some.jobs, *more.jobs])

    async def _claim(self, n: int, types: Sequence[str] | None = None) -> Claimed:
        with self._all.asking(n := min(n, BATCH), self._changed):
            looked = await self._queue.claim(n, types)
        self.looked_at = time.monotonic()
        self._metrics.claims.labels("jobs" if looked.jobs else "empty").inc()
        for call in self._executor.calls(looked.jobs):
            self._start(call)
        if not self._gate.is_set():  # the answer came after the fence: these rows may be somebody else's by now
            self.shut()
        return looked

    async def take_over(self, jobs: list[Job]) -> None:
        """Settle jobs rescued from a dead process, and look again: they are due."""
        await asyncio.gather(*(self._executor.take_over(job) for job in jobs))
        self._bell.ring()

    def interrupt(self, claims: list[int], reason: JobError) -> None:
        """End some running attempts."""
        for claim in claims:
            self._executor.interrupt(claim, reason)

    def shut(self) -> None:
        """No confirmed beat: claim nothing and end what runs; it is handed back when the database answers."""
        self._gate.clear()
        self.interrupt(self._executor.running(), Interrupted("the lease was not confirmed in time"))

    def open(self) -> None:
        """The lease is confirmed again: the database answers."""
        self._gate.set()
        self._answers.set()

    async def one_ended(self) -> None:
        """Wait until one of the jobs in hand has ended, if there are any."""
        if self.in_hand:
            self._changed.clear()
            await self._changed.wait()

    async def settled(self) -> None:
        """Wait until nothing is in hand."""
        while self.in_hand:
            await self.one_ended()

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Wait for what runs up to `grace` seconds or until `hurry`, then hand the rest back, uncounted."""
        self.interrupt(self._executor.waiting(), Interrupted("the daemon stops"))
        hurried = asyncio.create_task(hurry.wait())
        done = asyncio.create_task(self.settled())
        await asyncio.wait({hurried, done}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not done.done():
            self.interrupt(self._executor.running(), Interrupted("the daemon stops"))
            await asyncio.wait({done}, timeout=RELEASE_SECONDS if self._gate.is_set() else FENCED_SECONDS)
        done.cancel()

    async def room(self) -> int:
        """Wait until the lease is confirmed and a slot is free; answers with how many jobs may be claimed."""
        await self._gate.wait()
        while True:
            self._changed.clear()  # before the look: a job may end while the bell is turned off
            if (room := self._room()) > 0:
                return room
            await self._bell.off()
            await self._changed.wait()

    def _room(self) -> int:
        room = self._all.room()
        return room if self._others() else min(room, self._graphs.room())

    def _others(self) -> list[str]:
        return [name for name in self._queue.types if name not in self._names]

    def _start(self, call: list[Job]) -> None:
        name = call[0].job_type
        graph = name in self._names
        self._all.started()
        if graph:
            self._graphs.started()
        self.in_hand += 1
        if self.in_hand == 1:
            self.begun.set()
        ended = self._graph_ended if graph else self._ended
        self._executor.start(call, partial(self._gated_ended, name, ended) if name in self._gated else ended)

    def _gated_ended(self, name: str, ended: Callable[[End], None], end: End) -> None:
        ended(End(False, end.frees or name in self._limited))  # no sign of pace, whatever it did

    def _graph_ended(self, end: End) -> None:
        self._ended(end, self._graphs.ended(end.ran))

    def _ended(self, end: End, passed_over: bool = False) -> None:
        self.in_hand -= 1
        full = self._all.ended(end.ran)
        self._changed.set()
        if end.frees or full or passed_over:
            self._bell.ring()

    async def _failed(self, error: Exception, failures: int) -> None:
        if not is_transient(error):
            raise error
        if isinstance(error, asyncpg.PostgresError):
            self.refused_at = time.monotonic()
        self._metrics.claims.labels("failed").inc()
        self._metrics.database_error(error)
        pause = min(0.1 * 2 ** min(failures, 6), 5.0) * random.uniform(0.5, 1.0)
        if failures == 1 or failures % 10 == 0:
            sqlstate = getattr(error, "sqlstate", None)
            _log.warning("claim.failed", error=type(error).__name__, sqlstate=sqlstate, again_in=round(pause, 2))
        await self._answers.within(pause)
