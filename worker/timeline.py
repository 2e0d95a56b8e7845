"""What a step shows of itself on its job's timeline: for eyes only, the truth is its mark.

Eyes see nothing shorter than a moment, and most steps are over by then: they are spared the statement.
"""

import asyncio
import time
from collections.abc import Awaitable

import structlog

from worker.database import DATABASE_ERRORS
from worker.job import Job
from worker.job_queue import JobQueue

MOMENT_SECONDS = 0.05

_log = structlog.get_logger()


class Shown:
    """One run of a step, shown as running once it has lasted a moment."""

    def __init__(self, queue: JobQueue, job: Job, step: str) -> None:
        self._queue, self._job, self._step = queue, job, step
        self._began = time.monotonic()
        self._writing: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(MOMENT_SECONDS, self._running)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    async def over(self) -> None:
        """It runs no more; what is being written about it comes first, or it would run on after its end."""
        self._timer.cancel()
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def failed(self, text: str) -> None:
        """Show the failure."""
        await self.over()
        await _shown(self._queue.step_failed(self._job, self._step, text, self.seconds))

    def _running(self) -> None:
        self._writing = asyncio.ensure_future(_shown(self._queue.step_began(self._job, self._step, self.seconds)))


async def _shown(writing: Awaitable[object]) -> None:
    # The verdict carries a failure as well, so trouble here must not become the step's.
    try:
        await writing
    except DATABASE_ERRORS as error:
        _log.debug("step.not_shown", error=type(error).__name__)
