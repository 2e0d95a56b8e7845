"""What a handler is given."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar

import asyncpg
import structlog

from worker import exact
from worker.breaker import Sender
from worker.children import Children
from worker.database import ACQUIRE_SECONDS, borrowed
from worker.errors import JobError
from worker.job import Job
from worker.job_queue import JobQueue
from worker.kept_step import run_once
from worker.log import job_fields
from worker.ongoing import OpenStep
from worker.outbound import Answer, Request
from worker.permits import Permits
from worker.step import DEFAULT_SECONDS, Call, StepRunner, Watch, tell_left
from worker.trace_context import traceparent

P = ParamSpec("P")
T = TypeVar("T")

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
        until: monotonic seconds at which the attempt's time is over.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        settings: dict[str, Any],
        queue: JobQueue,
        steps: "asyncpg.Pool[asyncpg.Record]",
        watch: Watch | None = None,
        *,
        sender: Sender | None = None,
        children: Children | None = None,
        permits: Permits | None = None,
    ) -> None:
        self.job = jobs[0]
        self.jobs = jobs
        self.follows: list[dict[str, Any]] = []
        self.settings = settings
        self._queue = queue
        self._steps = steps
        self._watch = watch
        self._sender = sender
        self._permits = permits or Permits(queue, {})
        self._children = children
        self.until = float("inf")

    @property
    def payload(self) -> Any:
        """The payload, decoded; raises InvalidJob when it cannot be."""
        return self.job.payload

    @property
    def time_left(self) -> float:
        """Seconds until the attempt's `timeout` or the job's `deadline` ends it; infinity where it has neither."""
        return max(self.until - time.monotonic(), 0.0)

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

    async def step(
        self, name: str, function: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = DEFAULT_SECONDS
    ) -> Any:
        """Run a SQL function once for this job, however many attempts that takes: its effect and its mark are one
        transaction, fenced by this attempt's claim. A cancel, and the end of the attempt, really end it.

        Args:
            name: of the step; where an attempt has done it before, it is not done again.
            function: resolved as `sql` of a declared step is.
            arguments: by the names of the function's arguments; JSON values.
            timeout: seconds on the server.

        Returns:
            What the function answered, now or then.

        Raises:
            LostClaim: the job belongs to somebody else now; nothing was written.
            JobError: the function failed, or ran past its timeout; nothing of it is left.
        """
        call = Call(name, function, "", dict(arguments or {}), timeout=timeout)
        return await run_once(self._runner, self._queue, self._steps, self.job, call)

    def enqueue(self, job_type: str, payload: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Enqueue a job that follows this one: inserted with the verdict when this attempt completes, is skipped or
        snoozed, and forgotten otherwise. It inherits tenant, correlation id and trace.

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
        if (current := traceparent()) is not None:
            follow["traceparent"] = current
        # Fails here, at the author's line, and not in the settle; a copy, for the author may go on changing it.
        self.follows.append(exact.loads(exact.dumps(follow).decode()))

    async def http(self, request: Request) -> Answer:
        """Make one call and read its answer, whatever its status: bounded in time and size, no redirect followed. Of
        what no network of `request.allow` names, metadata addresses are never called, and where the address is not
        `trusted` only public ones are.

        Raises:
            Held: the endpoint has not answered for a while; nothing was sent.
            NoConnection, RefusedAddress: nothing was sent.
            Unreachable, TooSlow: no answer, and who knows what arrived there.
        """
        if self._sender is None:
            raise JobError("this context makes no calls")
        return await self._sender.send(request)

    async def to_process(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run a function that computes, blocks or may crash in a child process, as one of at most
        `worker.processes`; waits for its turn. The end of the wait is the end of the child, and of what it started.

        Args:
            function: a plain function that the child can import; it, the arguments and the result are pickled.

        Raises:
            TypeError: one of them cannot be handed over.
            ChildDied: the child ended in the midst of the call.
            Exception: whatever the function raised, with the child's traceback as a note.
        """
        if self._children is None:
            raise RuntimeError("this context was made without child processes")
        result: T = await self._children.call(function, *args, **named)
        return result

    async def permit(self, name: str) -> None:
        """Return when the rate `[rate.NAME]`, which all daemons share, has a permit for one more call.

        It waits here for up to 30 s, and not beyond the end of the attempt; then the attempt ends as
        `Snoozed(keep_steps=True)`, by an error that is not to be caught.

        Raises:
            ValueError: no rate has this name.
        """
        await self._permits.draw(name, self.until)

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
