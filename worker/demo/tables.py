"""The club in the database: `load` writes it, `finish_match` plays its next match, `add_matches` enters more.

The SQL is in sql/demo; COPY alone is Python's.
"""

import uuid
from collections.abc import Callable, Sequence

import asyncpg

from worker.demo.club import Club
from worker.migrations import sql_root

CHUNK = 5_000  # rows in one COPY


async def apply(connection: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
    """Run a file of sql/demo, whole or not at all."""
    async with connection.transaction():
        await connection.execute((sql_root() / "demo" / f"{name}.sql").read_text(encoding="utf-8"))


async def load(
    connection: "asyncpg.Connection[asyncpg.Record]", club: Club, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a club by COPY, in one transaction; `progress` is told the rows written and the rows in all.

    No job is enqueued for these rows, also where the trigger is there already.
    """
    tables: dict[str, Sequence[tuple[object, ...]]] = {
        "tenant": club.tenants,
        "player": club.players,
        "season": club.seasons,
        "match": club.matches,
        "player_match": club.player_matches,
    }
    total = sum(len(rows) for rows in tables.values())
    written = 0
    await apply(connection, "club")
    async with connection.transaction():
        await connection.execute("select demo.begin_load()")
        for table, rows in tables.items():
            for chunk in (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)):
                await connection.copy_records_to_table(table, schema_name="club", records=chunk)
                written += len(chunk)
                if progress:
                    progress(written, total)
        await connection.execute("select demo.end_load()")


async def finish_match(connection: "asyncpg.Connection[asyncpg.Record]", tenant_id: uuid.UUID) -> int:
    """Finish the club's next scheduled match and answer with its number; LookupError when none is left."""
    match_id: int | None = await connection.fetchval("select demo.finish_match($1)", tenant_id)
    if match_id is None:
        raise LookupError(f"club {tenant_id} has no scheduled match left")
    return match_id


async def add_matches(
    connection: "asyncpg.Connection[asyncpg.Record]", tenant_id: uuid.UUID, count: int, *, finished: bool
) -> None:
    """Enter so many matches with their line-ups at once; at most as many as the club was drawn with."""
    await connection.execute("select demo.add_matches($1, $2, $3)", tenant_id, count, finished)
