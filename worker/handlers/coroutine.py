"""A Python coroutine as a handler."""

import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from worker.config import JobType
from worker.context import Context
from worker.errors import DeclarationError


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
    handler: Callable[[Context], Awaitable[Any]] = function
    return handler
