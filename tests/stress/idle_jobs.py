"""A coroutine that keeps a transaction open and does nothing in it."""

import asyncio

from worker import Context


async def idle(context: Context) -> None:
    """One effect, then silence, then the commit that may come too late."""
    async with context.connection() as connection, connection.transaction():
        await connection.execute("insert into evidence.fx (job_id, step) values ($1, 'idle')", context.job.id)
        await asyncio.sleep(context.payload["ms"] / 1000)
