"""A call on its way to a child process, and its result or exception on the way back."""

import pickle
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from worker.child import RAISED


def packed(function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> bytes:
    """A call as it is sent.

    Raises:
        TypeError: it cannot be made in another process; says why.
    """
    name = getattr(function, "__qualname__", repr(function))
    if iscoroutinefunction(function):
        raise TypeError(f"{name} is a coroutine function; a child process runs plain ones")
    if getattr(function, "__module__", None) == "__main__":
        raise TypeError(f"{name} is a function of __main__, which no other process can import: put it into a module")
    try:
        return pickle.dumps((function, args, named))
    except Exception as error:
        raise TypeError(f"{name} cannot be called in a child process: {type(error).__name__}: {error}") from None


def unpacked(answer: bytes) -> Any:
    """The result of a call, or its exception raised."""
    try:
        said = pickle.loads(answer)  # noqa: S301, of our own child
    except Exception as error:
        raise TypeError(f"what it returned cannot be unpickled: {type(error).__name__}: {error}") from None
    if said[0] == RAISED:
        said[1].add_note(said[2])
        raise said[1]
    return said[1]
