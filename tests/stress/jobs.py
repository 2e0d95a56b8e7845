"""The coroutines that run under stress. What they leave behind lies in files, outside the database."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from worker import Context, Snoozed

VIOLATIONS = "violations"  # two holders of one key
OVERLAPS = "overlaps"  # two executions of one job
RUNS = "runs"


async def keyed(context: Context) -> object:
    """Holds the file of its key while it runs; that somebody else holds it already is what must never happen."""
    folder, payload = Path(context.settings["folder"]), context.payload
    with held(folder / f"key-{payload['key']}", folder / VIOLATIONS, context):
        result = await free(context)
    return result if context.job.id % 2 else None  # both ways of completing a job


async def free(context: Context) -> object:
    """Runs beside everything but another execution of the same job."""
    folder = Path(context.settings["folder"])
    with held(folder / f"job-{context.job.id}", folder / OVERLAPS, context):
        await asyncio.sleep(context.payload["ms"] / 1000)
        note(folder / RUNS, f"{context.job.id} {context.job.claim}")
    return {"claim": context.job.claim}


async def brief(context: Context) -> object:
    """Leaves no file behind: for millions."""
    await asyncio.sleep(context.payload["ms"] / 1000)
    return {"claim": context.job.claim}


async def comes_back(context: Context) -> object:
    """A snooze, a failure, and then success."""
    if context.job.snoozes == 0:
        return Snoozed(0.3)
    if context.job.attempt == 1:
        raise RuntimeError("the first time it fails")
    return None


@contextlib.contextmanager
def held(file: Path, violations: Path, context: Context) -> Iterator[None]:
    """The lock of a file, freed by the kernel however this process ends; who finds it taken is written down."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(violations, f"{file.name} {context.job.id} {context.job.claim} {os.getpid()}")
        yield
    finally:
        os.close(handle)


def note(file: Path, line: str) -> None:
    """One line, whole or not at all, whoever else writes."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def lines(folder: Path, name: str) -> list[list[str]]:
    """What was noted, word by word."""
    path = folder / name
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
