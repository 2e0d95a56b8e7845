"""Claims up to the free slots, holds what runs, interrupts one, and drains."""

import asyncio
import random
import time

import structlog

from worker.bell import Bell
from worker.database import DATABASE_ERRORS, is_transient
from worker.errors import Interrupted, JobError
from worker.executor import Executor
from worker.job import Job
from worker.job_queue import Claimed, JobQueue
from worker.metrics import Metrics

BATCH = 500
RELEASE_SECONDS = 10.0

_log = structlog.get_logger()


class Poller:
    """The claim loop.

    Args:
        concurrency: jobs that run at once.
        prefetch: jobs claimed beyond that, never more than finished within the last second: a long job must not wait
            here behind another while a neighbour is free.
    """

    def __init__(
        self, queue: JobQueue, executor: Executor, bell: Bell, metrics: Metrics, *, concurrency: int, prefetch: int
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._bell = bell
        self._metrics = metrics
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._tasks: set[asyncio.Task[bool]] = set()
        self._changed = asyncio.Event()
        self._finished: list[float] = []
        self._gate = asyncio.Event()
        self._gate.set()
        self.looked_at = time.monotonic()

    @property
    def in_hand(self) -> int:
        """Jobs claimed and not yet settled."""
        return len(self._tasks)

    async def run(self) -> None:
        """Claim, for ever; cancelled to stop."""
        failures = 0
        while True:
            try:
                room = min(await self.room(), BATCH)
                self._bell.clear()
                looked = await self.look(room)
                failures = 0
                if len(looked.jobs) >= room:
                    await self._bell.off()
                elif not looked.parked:
                    await self._bell.rest(looked)
            except DATABASE_ERRORS as error:
                failures += 1
                await self._failed(error, failures)

    async def look(self, room: int) -> Claimed:
        """One claim of up to `room` jobs, started."""
        looked = await self._queue.claim(min(room, BATCH))
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
        """The lease is confirmed again."""
        self._gate.set()

    async def one_ended(self) -> None:
        """Wait until one of the jobs in hand has ended, if there are any."""
        if self._tasks:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def settled(self) -> None:
        """Wait until nothing is in hand."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Wait for what runs up to `grace` seconds or until `hurry`, then hand the rest back, uncounted."""
        self.interrupt(self._executor.waiting(), Interrupted("the daemon stops"))
        hurried = asyncio.create_task(hurry.wait())
        done = asyncio.create_task(self.settled())
        await asyncio.wait({hurried, done}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not done.done():
            self.interrupt(self._executor.running(), Interrupted("the daemon stops"))
            await asyncio.wait({done}, timeout=RELEASE_SECONDS)
        done.cancel()

    async def room(self) -> int:
        """Wait until the lease is confirmed and a slot is free; answers with how many jobs may be claimed."""
        await self._gate.wait()
        while (room := self._concurrency + self._allowance() - len(self._tasks)) <= 0:
            await self._bell.off()
            self._changed.clear()
            await self._changed.wait()
        return room

    def _allowance(self) -> int:
        now = time.monotonic()
        self._finished = [at for at in self._finished if at > now - 1]
        return min(self._prefetch, len(self._finished))

    def _start(self, call: list[Job]) -> None:
        task = asyncio.create_task(self._executor.execute(call))
        self._tasks.add(task)
        self._metrics.running.set(len(self._tasks))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[bool]) -> None:
        self._tasks.discard(task)
        self._metrics.running.set(len(self._tasks))
        if len(self._finished) < self._prefetch:
            self._finished.append(time.monotonic())
        self._changed.set()
        if task.cancelled():
            return
        if error := task.exception():
            _log.error("job.crashed", error=f"{type(error).__name__}: {error}")
        elif task.result():
            self._bell.ring()

    async def _failed(self, error: Exception, failures: int) -> None:
        if not is_transient(error):
            raise error
        self._metrics.claims.labels("failed").inc()
        sqlstate = getattr(error, "sqlstate", None)
        self._metrics.database_errors.labels(self._metrics.sqlstate_label(sqlstate)).inc()
        pause = min(0.1 * 2 ** min(failures, 6), 5.0) * random.uniform(0.5, 1.0)
        if failures == 1 or failures % 10 == 0:
            _log.warning("claim.failed", error=type(error).__name__, sqlstate=sqlstate, again_in=round(pause, 2))
        await asyncio.sleep(pause)
