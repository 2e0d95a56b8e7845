"""Coroutines that test configurations name."""

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

from worker import Context


async def echo(context: Context) -> object:
    """Answers with its payload."""
    return context.payload


async def wait(context: Context) -> None:
    """Waits until it is stopped."""
    await asyncio.Event().wait()


async def stubborn(context: Context) -> None:
    """Ends when it likes, whatever it is told."""
    async with context.connection() as connection:
        await connection.execute("insert into fx (job_id, step) values ($1, 'stubborn')", context.job.id)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def threaded(context: Context) -> None:
    """Ends when it is told to, and leaves a thread that does not."""
    async with context.connection() as connection:
        await connection.execute("insert into fx (job_id, step) values ($1, 'threaded')", context.job.id)
    await asyncio.to_thread(time.sleep, 3600)


async def deadly(context: Context) -> None:
    """Takes the whole process along."""
    os.kill(os.getpid(), signal.SIGKILL)


async def effect(context: Context) -> None:
    """One row of evidence for each run."""
    async with context.connection() as connection:
        await connection.execute("insert into fx (job_id, step) values ($1, 'python')", context.job.id)


async def with_permit(context: Context) -> None:
    """Wait for a permit."""
    await context.permit("site")


async def one_of_three(context: Context) -> None:
    """Hold one of three locks for a moment, which the kernel frees when this process dies; tell when there is none."""
    folder = Path(context.settings["folder"])
    with contextlib.ExitStack() as stack:
        for number in range(3):
            lock = stack.enter_context((folder / f"slot{number}").open("a"))
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        else:
            (folder / f"excess-{context.job.id}").touch()
        await asyncio.sleep(0.03)
        (folder / f"done-{context.job.id}").touch()


async def nap(context: Context) -> None:
    """Takes a while."""
    await asyncio.sleep(context.settings["seconds"])
