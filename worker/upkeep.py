"""Side duties, each at its pace: rescue, sweep, the log's sums."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from worker.database import DATABASE_ERRORS, is_transient
from worker.job_queue import JobQueue
from worker.poller import Poller

RESCUE_BATCH = 100
SWEEP_PAGE = 1_000  # as worker.sweep takes them
MOST_SWEEPS = 100  # in one round

_log = structlog.get_logger()


async def every(
    seconds: float,
    duty: Callable[[], Awaitable[object]],
    hurry: asyncio.Event | None = None,
    failed: Callable[[BaseException], None] = lambda error: None,
) -> None:
    """Do `duty` every so many seconds, jittered, and at once when `hurry` is set.

    An error of the database is logged, told to `failed`, and the duty comes again; any other error is a bug and ends
    the process.
    """
    while True:
        try:
            await duty()
        except DATABASE_ERRORS as error:
            if not is_transient(error):
                raise
            failed(error)
            name, sqlstate = getattr(duty, "__name__", str(duty)), getattr(error, "sqlstate", None)
            _log.warning("duty.failed", duty=name, error=type(error).__name__, sqlstate=sqlstate)
        if hurry is None:
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))
        else:
            await _either(hurry, seconds)


async def _either(hurry: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await hurry.wait()
    except TimeoutError:
        pass
    hurry.clear()


class Rescue:
    """Declares suspects dead and takes over what they ran, page by page."""

    def __init__(self, queue: JobQueue, poller: Poller) -> None:
        self._queue = queue
        self._poller = poller
        self._suspects: set[int] = set()
        self.hurry = asyncio.Event()

    def suspect(self, process: int) -> None:
        """The lease saw a process gone."""
        self._suspects.add(process)
        self.hurry.set()

    async def run(self) -> None:
        """Judge the suspects, then settle whatever a dead process left."""
        suspects, self._suspects = self._suspects, set()
        for process in sorted(suspects):
            await self._judge(process)
        while jobs := await self._queue.rescue(RESCUE_BATCH):
            await self._poller.take_over(list(jobs))

    async def _judge(self, process: int) -> None:
        try:
            dead = await self._queue.declare_dead(process)
        except DATABASE_ERRORS as error:  # trouble with one must not keep the others from being judged
            _log.warning("process.not_judged", process=process, error=type(error).__name__)
            return
        if dead:
            _log.warning("process.dead", process=process)


async def sweep(queue: JobQueue, ring: Callable[[], None]) -> None:
    """Heal what can strand, and look again where something was found."""
    for _ in range(MOST_SWEEPS):  # a full page means that more is waiting
        healed = await queue.sweep()
        if healed:
            ring()
        if healed < SWEEP_PAGE:
            return
