"""The club in the database: `load` writes it, `finish_match` plays its next match, `add_matches` enters more."""

import uuid
from collections.abc import Callable, Sequence

import asyncpg

from worker.demo.club import Club

CHUNK = 5_000  # rows in one COPY


async def load(
    connection: "asyncpg.Connection[asyncpg.Record]", club: Club, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a club by COPY, in one transaction; `progress` is told the rows written and the rows in all.

    Best before 900_trigger.sql is applied: afterwards each chunk is a statement that asks for a refresh.
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
    async with connection.transaction():
        for table, rows in tables.items():
            for chunk in (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)):
                await connection.copy_records_to_table(table, schema_name="club", records=chunk)
                written += len(chunk)
                if progress:
                    progress(written, total)
        await connection.execute(ADVANCE_SEQUENCES)
    await connection.execute("analyze club.player, club.match, club.player_match")


# COPY brings its own numbers; whoever inserts next must not meet them.
ADVANCE_SEQUENCES = """
    select setval(pg_get_serial_sequence('club.player', 'id'), (select max(id) from club.player)),
           setval(pg_get_serial_sequence('club.season', 'id'), (select max(id) from club.season)),
           setval(pg_get_serial_sequence('club.match', 'id'), (select max(id) from club.match))
"""

# The plain UPDATE of an application, with the score added up from the goals that were noted.
FINISH_MATCH = """
    update club.match
       set status = 'finished', finished_at = now(), (team_a_score, team_b_score) = (
               select coalesce(sum(goals * (team = 'a')::int), 0), coalesce(sum(goals * (team = 'b')::int), 0)
                 from club.player_match as entry
                where entry.tenant_id = match.tenant_id and entry.match_id = match.id)
     where tenant_id = $1
       and id = (select id from club.match where tenant_id = $1 and status = 'scheduled'
                  order by played_on, id limit 1 for update skip locked)
    returning id
"""


async def finish_match(connection: "asyncpg.Connection[asyncpg.Record]", tenant_id: uuid.UUID) -> int:
    """Finish the club's next scheduled match and answer with its number; LookupError when none is left."""
    match_id: int | None = await connection.fetchval(FINISH_MATCH, tenant_id)
    if match_id is None:
        raise LookupError(f"club {tenant_id} has no scheduled match left")
    return match_id


# Copies of the club's first matches, so that no line-ups have to be drawn.
_ADD_MATCHES = """
    insert into club.match (tenant_id, id, season_id, played_on, status, team_a_score, team_b_score, finished_at)
    select tenant_id, id + $3, season_id, played_on, case when $4 then 'finished' else 'scheduled' end,
           case when $4 then team_a_score end, case when $4 then team_b_score end, case when $4 then now() end
      from club.match where tenant_id = $1 and id <= $2
"""
_ADD_LINE_UPS = """
    insert into club.player_match (tenant_id, match_id, player_id, team, goals)
    select tenant_id, match_id + $3, player_id, team, goals
      from club.player_match where tenant_id = $1 and match_id <= $2
"""


async def add_matches(
    connection: "asyncpg.Connection[asyncpg.Record]", tenant_id: uuid.UUID, count: int, *, finished: bool
) -> None:
    """Enter so many matches with their line-ups in one transaction; at most as many as the club was drawn with."""
    async with connection.transaction():
        top = await connection.fetchval("select max(id) from club.match where tenant_id = $1", tenant_id)
        await connection.execute(_ADD_MATCHES, tenant_id, count, top, finished)
        await connection.execute(_ADD_LINE_UPS, tenant_id, count, top)
        await connection.execute(ADVANCE_SEQUENCES)
