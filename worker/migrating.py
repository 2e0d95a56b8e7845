"""One migration at a time.

Two at once wait for each other by polling: a session that waits inside `pg_advisory_lock()` holds a snapshot, and an
index built concurrently by the other would wait for it for ever.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from worker.errors import SchemaBusy

LOCK = 0x776F726B6572  # "worker", the key in the database's advisory locks
LOCK_SECONDS = 60.0
ANSWER_SECONDS = 10.0

_TAKE = "select pg_try_advisory_lock($1)"


@asynccontextmanager
async def alone(connection: asyncpg.Connection, whose: str) -> AsyncIterator[None]:
    """Hold the lock of migrations, which is waited for.

    Args:
        whose: the question who holds a lock (`sql/migrating/holder.sql`).

    Raises:
        SchemaBusy: another session goes on holding it; the message names that one.
    """
    end = time.monotonic() + LOCK_SECONDS
    # The holder is another process, so there is no event to wait for.
    while not await connection.fetchval(_TAKE, LOCK, timeout=ANSWER_SECONDS):
        if time.monotonic() > end:
            raise SchemaBusy(await _in_the_way(connection, whose))
        await asyncio.sleep(0.1)
    try:
        yield
    finally:
        await connection.execute("select pg_advisory_unlock($1)", LOCK)


async def under_way(connection: asyncpg.Connection) -> bool:
    """Whether somebody migrates at this moment."""
    return not await connection.fetchval("select pg_try_advisory_xact_lock_shared($1)", LOCK)


async def _in_the_way(connection: asyncpg.Connection, whose: str) -> str:
    """Who holds the lock, as every login may, and what to do about it."""
    holder = await connection.fetchrow(whose, LOCK, timeout=ANSWER_SECONDS)
    if holder is None:
        return f"others migrated for {LOCK_SECONDS:g} s; repeat"
    pid, login, name = holder
    return (
        f"somebody else migrates, or keeps others from it: pid {pid} of the server, user {login}, {name}; "
        f"let it end, or end it by `select pg_terminate_backend({pid});`, and repeat"
    )
