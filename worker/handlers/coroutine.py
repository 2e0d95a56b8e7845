"""A Python coroutine as a handler; tasks that it leaves running end with it."""

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import asyncpg
import structlog

from worker import database, step, timeline
from worker.config import JobType
from worker.context import Context
from worker.errors import DeclarationError
from worker.job import Job
from worker.log import job_fields

# What was left behind to cancel a statement or to give a connection back must be let finish.
_LIBRARIES = (str(Path(asyncpg.__file__).parent), database.__file__, step.__file__, timeline.__file__)

_Tasks = set[asyncio.Task[Any]]
_tasks: ContextVar[_Tasks | None] = ContextVar("tasks of this job", default=None)

_log = structlog.get_logger()


def build(job_type: JobType) -> Callable[[Context], Awaitable[Any]]:
    """Import the coroutine function that `python = "module:function"` names.

    Raises:
        DeclarationError: it cannot be imported, or is no coroutine function of one argument.
    """
    assert job_type.python is not None
    module, _, name = job_type.python.partition(":")
    fault = f"job.{job_type.name}: python = {job_type.python!r}: "
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the author's module raises on import
        raise DeclarationError([f"{fault}{type(error).__name__}: {error}"]) from None
    if not inspect.iscoroutinefunction(function):
        raise DeclarationError([f"{fault}is not an `async def` function"])
    if len(inspect.signature(function).parameters) != 1:
        raise DeclarationError([f"{fault}must take one argument, the context"])
    return _tidied(function)


def note_tasks() -> None:
    """Let the running loop note which tasks a job's handler makes; a factory that somebody set stays."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        loop.set_task_factory(_noting)


def _tidied(function: Callable[[Context], Awaitable[Any]]) -> Callable[[Context], Awaitable[Any]]:
    async def handler(context: Context) -> Any:
        tasks: _Tasks = set()
        token = _tasks.set(tasks)  # in the context of this job's own task, which whatever it creates inherits
        try:
            return await function(context)
        finally:
            _tasks.reset(token)
            if tasks:
                _end(context.job, tasks)

    return handler


def _noting(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
    """Creates tasks, and notes those of a job: asking asyncio for all tasks would cost every job the sum of all."""
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **more)
    context = more.get("context")
    tasks = _tasks.get() if context is None else context.get(_tasks)
    if tasks is not None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return task


def _end(job: Job, tasks: Iterable[asyncio.Task[Any]]) -> None:
    left = [task for task in tasks if not task.done() and not _of_a_library(task)]
    for task in left:
        task.cancel()
    if left:
        names = sorted({getattr(task.get_coro(), "__qualname__", task.get_name()) for task in left})
        _log.warning("handler.left_tasks", tasks=len(left), names=names[:10], **job_fields(job))


def _of_a_library(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_LIBRARIES)
