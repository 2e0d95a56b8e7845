"""What the tests of child processes have them do, and handlers that ask for it. Quickly imported: each child does."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import Permanent

if TYPE_CHECKING:
    from worker import Context

LONG = 600.0
calls = 0


class Awkward(Exception):
    """Can be packed, but not unpacked: its argument is not its constructor's."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def write(path: str, text: object) -> None:
    """All at once: whoever looks sees nothing or all of it."""
    part = Path(f"{path}.{uuid.uuid4().hex}")
    part.write_text(str(text), encoding="utf-8")
    part.rename(path)


def mine(given: Any = None) -> tuple[int, Any]:
    return os.getpid(), given


def count() -> int:
    global calls
    calls += 1
    return calls


def crowd(folder: str, seconds: float) -> int:
    """How many are in here at the same time, as the files of a folder tell."""
    me = Path(folder, uuid.uuid4().hex)
    me.touch()
    time.sleep(seconds)
    together = len(list(Path(folder).iterdir()))
    me.unlink()
    return together


def sleep(path: str, seconds: float = LONG) -> None:
    write(path, os.getpid())
    time.sleep(seconds)


def spin(path: str) -> None:
    write(path, os.getpid())
    while True:
        pass


def deaf(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep(path)


def tidy(path: str) -> None:
    try:
        sleep(path)
    finally:
        write(f"{path}.tidy", "yes")


def parent(path: str) -> None:
    started = subprocess.Popen(["sleep", str(LONG)])
    write(path, started.pid)
    started.wait()


def die(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            ctypes.string_at(0)
        case "fork":
            if os.fork() == 0:
                time.sleep(LONG)
            os.kill(os.getpid(), signal.SIGKILL)
        case "close":
            os.closerange(3, 64)


def fail(how: str) -> None:
    match how:
        case "value":
            raise ValueError("no such thing")
        case "permanent":
            raise Permanent("never")
        case "awkward":
            raise Awkward("this", "that")
        case "quit":
            sys.exit(3)


def unpicklable() -> Any:
    return lambda: None


def inherited() -> dict[str, Any]:
    return {"environment": dict(os.environ), "open": list(_open()), "folder": str(Path.cwd()), "path": sys.path}


def _open() -> Iterator[str]:
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that reads the folder
            yield str(each.readlink())


async def coroutine() -> None:
    """No plain function."""


async def held(context: Context) -> None:
    await context.to_process(tidy, context.payload["path"])


async def brief(context: Context) -> None:
    await context.to_process(sleep, context.payload["path"], context.payload["seconds"])


async def once_killed(context: Context) -> str:
    """Waits to be killed the first time, and does well the second."""
    if context.job.attempt == 1:
        await context.to_process(sleep, context.payload["path"])
    return "well"


async def worked(context: Context) -> int:
    await context.to_process(time.sleep, 0.01)
    return context.job.attempt


async def who(context: Context) -> tuple[int, Any]:
    return await context.to_process(mine, context.payload)


async def left(context: Context) -> float:
    return context.time_left


curried = functools.partial(mine, "curried")
