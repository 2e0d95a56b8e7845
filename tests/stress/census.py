"""How many connections the daemons hold, counted all the time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from tests.stress.place import Place
from worker.check.capacity import ALONE
from worker.database import CONTROL_CONNECTIONS

STEPS = 8  # database.steps, where nothing else is configured
EACH = STEPS + CONTROL_CONNECTIONS + ALONE  # what `worker check` says that one daemon takes
EVERY = 0.05
COUNT = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name ~ '^worker ' and backend_type = 'client backend'
"""


class Census:
    """The most connections that were seen at once."""

    def __init__(self) -> None:
        self.most = 0
        self.looks = 0


@asynccontextmanager
async def counted(place: Place) -> AsyncIterator[Census]:
    """Count until the end; a server that does not answer is asked again."""
    census = Census()

    async def count() -> None:
        connection: asyncpg.Connection | None = None
        while True:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(place.dsn, timeout=5, command_timeout=5)
                census.most = max(census.most, await connection.fetchval(COUNT))
                census.looks += 1
            await asyncio.sleep(EVERY)

    task = asyncio.create_task(count())
    try:
        yield census
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
