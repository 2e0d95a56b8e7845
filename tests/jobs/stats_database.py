"""What the tests of the stats SQL share: applying the files, running the functions, reading the tables."""

import json
import uuid
from pathlib import Path
from typing import Any

import asyncpg

SQL = Path(__file__).parents[2] / "sql" / "jobs" / "stats"
TRIGGER = "900_trigger.sql"

# The ten functions in an order that respects what each needs, and what each fills with that table's key.
FUNCTIONS = {
    "update_half_and_full_season_stats": ("season_stats",),
    "update_aggregated_all_time_stats": ("all_time_stats",),
    "update_aggregated_hall_of_fame": ("hall_of_fame",),
    "update_aggregated_recent_performance": ("recent_performance",),
    "update_aggregated_personal_bests": ("personal_bests",),
    "update_aggregated_match_report_cache": ("match_report",),
    "update_aggregated_season_honours_and_records": ("season_honours", "records"),
    "update_aggregated_player_profile_stats": ("player_profile_stats",),
    "update_aggregated_season_race_data": ("season_race_data",),
    "update_power_ratings": ("player_power_rating",),
}
KEYS = {
    "season_stats": ("season_id", "half", "player_id"),
    "all_time_stats": ("player_id",),
    "hall_of_fame": ("category", "place"),
    "recent_performance": ("player_id",),
    "personal_bests": ("player_id", "category", "match_id"),
    "match_report": ("match_id",),
    "season_honours": ("season_id", "honour", "place"),
    "records": ("record",),
    "player_profile_stats": ("player_id",),
    "season_race_data": ("season_id", "match_number", "player_id"),
    "player_power_rating": ("player_id",),
}
JSON = {"personal_bests", "records"}  # columns of match_report
Table = dict[tuple[Any, ...], dict[str, Any]]


async def install(connection: asyncpg.Connection, *, trigger: bool = False) -> None:
    """Apply the shipped files, as `psql -1 -f` would."""
    for file in sorted(SQL.glob("*.sql")):
        if trigger or file.name != TRIGGER:
            async with connection.transaction():
                await connection.execute(file.read_text())


async def configure(connection: asyncpg.Connection, tenant_id: uuid.UUID, settings: dict[str, int]) -> None:
    await connection.executemany(
        "insert into club.config values ($1, $2, $3)", [(tenant_id, key, value) for key, value in settings.items()]
    )


async def run(connection: asyncpg.Connection, function: str, tenant_id: uuid.UUID) -> int:
    """Call a function as the worker does, by its bare name under a search_path; answers with the changed rows."""
    assert function in FUNCTIONS
    async with connection.transaction():
        await connection.execute("set local search_path = club, public")
        changed: int = await connection.fetchval(f"select {function}(target_tenant_id => $1)", tenant_id)
        return changed


async def refresh(connection: asyncpg.Connection, tenant_id: uuid.UUID) -> dict[str, int]:
    return {function: await run(connection, function, tenant_id) for function in FUNCTIONS}


async def table(connection: asyncpg.Connection, name: str, tenant_id: uuid.UUID) -> Table:
    """One tenant's rows as {key: other columns}, JSON decoded."""
    key = KEYS[name]
    rows = await connection.fetch(f"select * from club.{name} where tenant_id = $1", tenant_id)
    found: Table = {}
    for row in rows:
        columns = {column: json.loads(value) if column in JSON else value for column, value in row.items()}
        del columns["tenant_id"]
        found[tuple(columns.pop(column) for column in key)] = columns
    return found


async def tables(connection: asyncpg.Connection, tenant_id: uuid.UUID) -> dict[str, Table]:
    return {name: await table(connection, name, tenant_id) for name in KEYS}


async def versions(connection: asyncpg.Connection, tenant_id: uuid.UUID) -> dict[str, list[asyncpg.Record]]:
    """Every row with the place and transaction that wrote it: equal only when nothing was written at all."""
    return {
        name: await connection.fetch(
            f"select ctid, xmin, * from club.{name} where tenant_id = $1 order by {', '.join(KEYS[name])}", tenant_id
        )
        for name in KEYS
    }
