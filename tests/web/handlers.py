"""Coroutines that make the daemon say things."""

import asyncio
import time

from worker import Context, Permanent, Snoozed


async def refuse(context: Context) -> None:
    """Fails for good."""
    raise Permanent("refused")


async def stumble(context: Context) -> None:
    """Fails at the first attempt."""
    if context.job.attempt == 1:
        raise RuntimeError("stumbled")


async def snooze(context: Context) -> object:
    """Comes again, much later."""
    return Snoozed(3600)


async def block(context: Context) -> None:
    """Does not give way: what must not be done in a coroutine."""
    time.sleep(0.8)  # noqa: ASYNC251


async def lose(context: Context) -> None:
    """Somebody takes its claim away while it runs."""
    async with context.connection() as connection:
        await connection.execute(
            "update worker.job_queue set claim = nextval('worker.claim_seq') where id = $1", context.job.id
        )


async def hold(context: Context) -> None:
    """Keeps its slot."""
    await asyncio.Event().wait()
