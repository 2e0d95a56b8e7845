"""Tasks in which handlers run: one for many jobs where handlers come back without waiting, else one for each.

To make a task for each job took 1.6 µs of the 13 that a job with nothing to do costs its daemon.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any

from worker.attempt import Attempt
from worker.errors import JobError

BURST_SECONDS = 0.01  # of jobs in the common task; then the loop has its turn
WAITS_SECONDS = 1.0  # that jobs of a type get a task each once its handler waited


class _Seat:
    """Who sits in the common task."""

    __slots__ = ("attempt",)

    def __init__(self) -> None:
        self.attempt: Attempt | None = None


class Runners:
    """Runs attempts whose turn has come.

    The common task goes on with the next job only as it was made: its context variables the same, no cancellation asked
    of it.

    Args:
        call: runs the handler; answers with what came of it, and raises nothing.
        over: told what came, outside of what the handler left in its context.
    """

    def __init__(
        self, call: Callable[[Attempt], Coroutine[Any, Any, Any]], over: Callable[[Attempt, Any], None]
    ) -> None:
        self._call = call
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._made = copy_context()  # what every task begins with, whoever lets a job begin
        self._line: deque[Attempt] = deque()
        self._common: _Seat | None = None  # of the common task, until a handler waits in it
        self._waits: dict[str, float] = {}  # by type, until when (monotonic seconds)

    def begin(self, attempt: Attempt) -> None:
        """Run it soon, not within this call; one that is over by then is left out."""
        if self._waits and self._waits.get(attempt.jobs[0].job_type, 0.0) > (attempt.began or 0.0):
            attempt.task = self._task(self._call(attempt), partial(self._ended, attempt))
            attempt.task.set_name(f"job {attempt.jobs[0].id}")
            return
        self._line.append(attempt)
        if self._common is None:
            self._together()

    def _together(self) -> None:
        seat = self._common = _Seat()
        self._task(self._one_by_one(seat), partial(self._left, seat))
        self._loop.call_soon(self._look, seat)  # comes after the first step of that task

    def _task(
        self, work: Coroutine[Any, Any, Any], ended: Callable[["asyncio.Task[Any]"], None]
    ) -> "asyncio.Task[Any]":
        # Not by the loop's factory, which notes the tasks that handlers make.
        task = asyncio.Task(work, loop=self._loop, context=self._made.copy())
        task.add_done_callback(ended)  # so that it runs outside of the handler's task and context
        return task

    def _look(self, seat: _Seat) -> None:
        """If a handler waits in it, or left something behind, it is no common task any more: those in line get tasks of
        their own.
        """
        if self._common is not seat or seat.attempt is None:
            return
        self._waits[seat.attempt.jobs[0].job_type] = time.monotonic() + WAITS_SECONDS
        self._common, line, self._line = None, self._line, deque()
        for attempt in line:
            self.begin(attempt)

    async def _one_by_one(self, seat: _Seat) -> Any:
        task, until = asyncio.current_task(), time.monotonic() + BURST_SECONDS
        assert task is not None
        try:
            while self._line:
                attempt = self._line.popleft()
                if attempt.over:
                    continue
                seat.attempt, attempt.task = attempt, task
                task.set_name(f"job {attempt.jobs[0].id}")
                came = await self._call(attempt)
                if self._common is not seat or not self._as_made(task):
                    return came
                seat.attempt = None
                self._over(attempt, came)
                if time.monotonic() >= until:
                    break
        finally:
            if self._common is seat and seat.attempt is None:
                self._common = None
                if self._line:
                    self._together()
        return None

    def _left(self, seat: _Seat, task: "asyncio.Task[Any]") -> None:
        if seat.attempt is not None:
            self._ended(seat.attempt, task)
        elif not task.cancelled():
            task.result()  # raises what telling raised, for the loop to say

    def _ended(self, attempt: Attempt, task: "asyncio.Task[Any]") -> None:
        self._over(attempt, JobError("the handler was cancelled from within") if task.cancelled() else task.result())

    def _as_made(self, task: "asyncio.Task[Any]") -> bool:
        try:
            return not task.cancelling() and copy_context() == self._made
        except Exception:  # a variable holds something that cannot be compared
            return False
