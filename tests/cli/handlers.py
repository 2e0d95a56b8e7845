"""Coroutines that the command line's tests run."""

import asyncio

from worker import Context, Permanent, Snoozed


async def fine(context: Context) -> str:
    return "fine"


async def fails(context: Context) -> None:
    raise Permanent("it is broken")


async def stumbles(context: Context) -> None:
    """Fails the first time only."""
    if context.job.attempt == 1:
        raise ValueError("not yet")


async def snoozes(context: Context) -> Snoozed | None:
    return Snoozed(0.3) if context.job.snoozes == 0 else None


async def follows(context: Context) -> None:
    """Enqueues another."""
    async with context.connection() as connection:
        await connection.fetchval("select worker.enqueue('fine')")


async def waits(context: Context) -> None:
    await asyncio.Event().wait()
