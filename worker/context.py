"""What a handler is given."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any

import asyncpg
import structlog

from worker import exact
from worker.database import ACQUIRE_SECONDS, borrowed
from worker.errors import JobError
from worker.job import Job
from worker.job_queue import JobQueue, OpenStep
from worker.log import job_fields
from worker.step import Call, StepRunner, Watch, tell_left

NESTED_SECONDS = 5.0  # for a connection within a connection

_WITHIN = "; one is held already: give it back before, or set database.steps higher"
_held: ContextVar[int] = ContextVar("connections held", default=0)
_FOLLOW_KEYS = {"delay", "priority", "unique_key", "tenant_id", "source"}


class Context:
    """One attempt of one job, as its handler sees it.

    Attributes:
        job: the claimed row; of a coalesced call the oldest.
        jobs: all rows of the call, `job` first.
        settings: the type's `settings` in worker.toml.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        settings: dict[str, Any],
        queue: JobQueue,
        steps: "asyncpg.Pool[asyncpg.Record]",
        watch: Watch | None = None,
    ) -> None:
        self.job = jobs[0]
        self.jobs = jobs
        self.follows: list[dict[str, Any]] = []
        self.settings = settings
        self._queue = queue
        self._steps = steps
        self._watch = watch

    @property
    def payload(self) -> Any:
        """The payload, decoded; raises InvalidJob when it cannot be."""
        return self.job.payload

    @cached_property
    def _runner(self) -> StepRunner:
        return StepRunner(self._steps, self._queue, self._watch)

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

    def enqueue(self, job_type: str, payload: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Enqueue a job that follows this one: inserted with the verdict when this attempt completes, is skipped or
        snoozed, and forgotten otherwise. It inherits tenant and correlation id.

        Args:
            more: delay (seconds), priority, unique_key (kept when it is held), tenant_id, source.

        Raises:
            TypeError: another name in `more`, or a payload that is no JSON.
        """
        if unknown := more.keys() - _FOLLOW_KEYS:
            raise TypeError(
                f"enqueue: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(_FOLLOW_KEYS))}"
            )
        follow = {"job_type": job_type, "payload": dict(payload or {}), **more}
        # Fails here, at the author's line, and not in the settle; a copy, for the author may go on changing it.
        self.follows.append(exact.loads(exact.dumps(follow).decode()))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the step pool; what it leaves behind is reset when it is given back.

        Raises:
            JobError: one is held already and no other came free soon: attempts that do so could wait for each other.
        """
        held = _held.get()
        seconds = NESTED_SECONDS if held else ACQUIRE_SECONDS
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(
                    borrowed(self._steps, seconds, told=partial(tell_left, self.job))
                )
            except TimeoutError:
                raise JobError(
                    f"no connection of database.steps came free in {seconds:g} s{_WITHIN if held else ''}"
                ) from None
            _held.set(held + 1)
            try:
                yield connection
            finally:
                _held.set(held)

    async def begin_steps(self, names: list[str]) -> list[OpenStep]:
        """Open the timeline: which steps are done, and their usual seconds."""
        return await self._runner.begin(self.job, names)

    async def run_step(self, call: Call) -> Any:
        """Run one SQL step: effect and mark in one transaction, fenced by this attempt's claim."""
        return await self._runner.run(self.job, call)
