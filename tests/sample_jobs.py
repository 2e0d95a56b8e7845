"""Coroutines that test configurations name."""

import asyncio
import os
import signal
import time

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
