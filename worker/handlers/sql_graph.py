"""A graph of SQL functions as a handler: in parallel as their needs are done, the longest remaining path first."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg

from worker.config import JobType
from worker.connection import CONTROL_SECONDS
from worker.context import Context
from worker.database import borrowed
from worker.errors import CancelRequested, DeclarationError, LostClaim, StepsFailed, StepTimeout
from worker.graph import Graph, Step
from worker.outcome import Completed, Outcome, Snoozed
from worker.step import DEFAULT_SECONDS, Call, StepBusy

BUSY_SECONDS = 1.0


async def build(job_type: JobType, steps: "asyncpg.Pool[asyncpg.Record]") -> "SqlGraph":
    """Look up every function of the graph on the step connections' search_path and make its call.

    Raises:
        DeclarationError: functions that do not exist or have other arguments, each with type and step.
    """
    assert job_type.graph is not None
    calls: dict[str, Call] = {}
    faults: list[str] = []
    async with borrowed(steps, CONTROL_SECONDS) as connection:
        for step in job_type.graph.steps.values():
            row = await connection.fetchrow(
                "select * from worker.step_call($1, $2)", step.sql, list(job_type.arguments), timeout=30
            )
            assert row is not None
            if row["fault"]:
                faults.append(f"job.{job_type.name}.steps.{step.name}: {row['fault']}")
            timeout = step.timeout or job_type.timeout or DEFAULT_SECONDS
            calls[step.name] = Call(step.name, step.sql, row["call"] or "", {}, step.tags, timeout)
    if faults:
        raise DeclarationError(faults)
    return SqlGraph(job_type.graph, calls, dict(job_type.arguments), job_type.parallel)


class SqlGraph:
    """Runs the steps that are missing; a step that is marked as done is never run again."""

    def __init__(self, graph: Graph, calls: dict[str, Call], arguments: dict[str, str], parallel: int) -> None:
        self._graph = graph
        self._calls = calls
        self._arguments = arguments
        self._parallel = parallel

    async def __call__(self, context: Context) -> Outcome:
        """One attempt; raises StepsFailed naming every failed step once nothing more can run."""
        arguments = {name: context.job.argument(source) for name, source in self._arguments.items()}
        opened = await context.begin_steps(list(self._graph.steps))
        run = _Run(self._graph, context, self._parallel, {s.name for s in opened if s.done})
        cost = {s.name: s.seconds for s in opened if s.seconds is not None}
        calls = {name: replace(call, arguments=arguments) for name, call in self._calls.items()}
        return await run.all(calls, self._graph.remaining(cost))


class _Run:
    def __init__(self, graph: Graph, context: Context, parallel: int, done: set[str]) -> None:
        self._graph = graph
        self._context = context
        self._permits = _Permits(parallel)
        loop = asyncio.get_running_loop()
        self._ended: dict[str, asyncio.Future[bool]] = {name: loop.create_future() for name in graph.steps}
        for name in done:
            self._ended[name].set_result(True)

    async def all(self, calls: dict[str, Call], weight: dict[str, float]) -> Outcome:
        missing = [step for step in self._graph.steps.values() if not self._ended[step.name].done()]
        missing.sort(key=lambda step: -weight[step.name])
        came = await asyncio.gather(
            *(self._one(step, calls[step.name], weight[step.name]) for step in missing), return_exceptions=True
        )
        return self._judged(dict(zip(missing, came, strict=True)))

    async def _one(self, step: Step, call: Call, weight: float) -> Any:
        done = False
        try:
            if not all([await asyncio.shield(self._ended[need]) for need in step.needs]):
                return None  # a need failed: this step stays waiting
            async with self._permits.take(weight):
                result = await self._context.run_step(call)
            done = True
            return result
        except Exception:
            done = step.optional
            raise
        finally:
            self._ended[step.name].set_result(done)

    def _judged(self, came: dict[Step, Any]) -> Outcome:
        errors = {step: error for step, error in came.items() if isinstance(error, BaseException)}
        for error in errors.values():
            if isinstance(error, LostClaim | CancelRequested) or not isinstance(error, Exception):
                raise error
        counted = {step: error for step, error in errors.items() if not step.optional}
        failed = [error for error in counted.values() if not isinstance(error, StepBusy)]
        if failed:
            late = all(isinstance(error, StepTimeout) for error in failed)
            raise (StepTimeout if late else StepsFailed)("; ".join(map(str, failed)))
        if counted:
            return Snoozed(BUSY_SECONDS, keep_steps=True)
        return Completed({step.name: value for step, value in came.items() if step not in errors})


class _Permits:
    """A semaphore that lets the heaviest waiter in first."""

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    @asynccontextmanager
    async def take(self, weight: float) -> AsyncIterator[None]:
        await self._acquire(weight)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, weight: float) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._waiting, (-weight, self._order, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the permit was handed over just when we were cancelled
            raise

    def _release(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
