"""What a handler is given."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

import asyncpg
import structlog

from worker.database import borrowed
from worker.job import Job
from worker.job_queue import JobQueue, OpenStep
from worker.log import job_fields
from worker.step import Call, StepRunner


class Context:
    """One attempt of one job, as its handler sees it.

    Attributes:
        job: the claimed row.
        settings: the type's `settings` in worker.toml.
    """

    def __init__(
        self, job: Job, settings: dict[str, Any], queue: JobQueue, steps: "asyncpg.Pool[asyncpg.Record]"
    ) -> None:
        self.job = job
        self.settings = settings
        self._queue = queue
        self._steps = steps
        self._runner = StepRunner(steps, queue)

    @property
    def payload(self) -> Any:
        """The payload, decoded; raises InvalidJob when it cannot be."""
        return self.job.payload

    @cached_property
    def log(self) -> Any:
        """A logger whose lines carry the job's fields."""
        return structlog.get_logger().bind(**job_fields(self.job))

    async def progress(self, phase: str | None = None, **progress: Any) -> None:
        """Show how far the job is; seen in `worker.jobs` at once.

        Raises:
            LostClaim: the job belongs to somebody else now; stop.
        """
        await self._queue.progress(self.job, phase, progress or None)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the step pool; what it leaves behind is reset when it is given back."""
        async with borrowed(self._steps) as connection:
            yield connection

    async def begin_steps(self, names: list[str]) -> list[OpenStep]:
        """Open the timeline: which steps are done, and their usual seconds."""
        return await self._runner.begin(self.job, names)

    async def run_step(self, call: Call) -> Any:
        """Run one SQL step: effect and mark in one transaction, fenced by this attempt's claim."""
        return await self._runner.run(self.job, call)
