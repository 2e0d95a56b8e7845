"""Waiting for another process, never without a deadline."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from worker.errors import EmbeddedError

LOCK_SECONDS = 180.0


def until(seconds: float, otherwise: str) -> Iterator[None]:
    """Go round until the caller breaks out; at the deadline fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)
    raise EmbeddedError(f"gave up after {seconds:g} s: {otherwise}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the file's lock; other processes wait, but not for ever."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        for _ in until(LOCK_SECONDS, f"another process holds {path}"):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        yield
    finally:
        os.close(handle)
