"""What the tests of the reconcile share: the shipped SQL, leagues to reconcile, and what is in the tables."""

from collections.abc import Iterable
from typing import Any

import asyncpg

from worker import migrations

TABLES = ("competitions", "teams", "competition_progress", "season_progress")
_DIGEST = "select coalesce(md5(string_agg(t::text || ctid || xmin, '|' order by ctid)), '') from league.{} t"


async def install(connection: asyncpg.Connection) -> None:
    """Apply the shipped files."""
    await migrations.install(connection, "reconcile")


async def digest(connection: asyncpg.Connection) -> dict[str, str]:
    """Of every table, rows with the place and transaction that wrote them: equal only when nothing was written."""
    return {table: await connection.fetchval(_DIGEST.format(table)) for table in TABLES}


async def collect(
    connection: asyncpg.Connection, competition: str, seasons: Iterable[str] = ("2024", "2025"), clubs: int = 3
) -> None:
    """Teams of a competition, without a word about progress; each season's are from the first of its January."""
    await connection.execute(
        "insert into league.teams select 'club' || n, year, $1, make_date(year::int, 1, 1)"
        " from unnest($2::text[]) as year, generate_series(1, $3) as n",
        competition,
        list(seasons),
        clubs,
    )


async def many(connection: asyncpg.Connection, competitions: int, seasons: int = 10, clubs: int = 20) -> None:
    """A big league, nothing of it written down as progress: C00001, C00002 …"""
    await connection.execute(
        "insert into league.teams select 'club' || n, (2000 + s)::text, 'C' || lpad(c::text, 5, '0'), '2026-01-01'"
        " from generate_series(1, $1) c, generate_series(1, $2) s, generate_series(1, $3) n",
        competitions,
        seasons,
        clubs,
    )
    await connection.execute("analyze league.teams")


async def competition(connection: asyncpg.Connection, name: str, status: str, **columns: Any) -> None:
    """A record of competition_progress; `ago` is how many minutes ago it was started."""
    await connection.execute(
        "insert into league.competition_progress (competition_id, competition_url, status, seasons_discovered,"
        " worker_id, started_at, completed_at, error_message)"
        " values ($1, $2, $3, $4, $5, now() - make_interval(mins => $6),"
        " case when $3 = 'completed' then now() end, $7)",
        name,
        columns.get("url", f"https://league.example/{name}"),
        status,
        columns.get("seasons", 0),
        columns.get("worker"),
        columns.get("ago"),
        columns.get("error"),
    )


async def season(connection: asyncpg.Connection, name: str, year: str, status: str, **columns: Any) -> None:
    """A record of season_progress; `ago` is how many minutes ago it was started."""
    await connection.execute(
        "insert into league.season_progress (competition_id, season_year, season_id, status, clubs_saved, worker_id,"
        " started_at, completed_at, error_message) values ($1, $2, $3, $4, $5, $6, now() - make_interval(mins => $7),"
        " case when $4 = 'completed' then now() end, $8)",
        name,
        year,
        columns.get("season_id", f"tracker-{name}-{year}"),
        status,
        columns.get("clubs", 0),
        columns.get("worker"),
        columns.get("ago"),
        columns.get("error"),
    )


async def plan(connection: asyncpg.Connection, name: str | None = None) -> list[asyncpg.Record]:
    return await connection.fetch("select * from league.reconcile_plan($1, $1)", name)


async def apply(connection: asyncpg.Connection, name: str | None = None) -> list[asyncpg.Record]:
    return await connection.fetch("select * from league.reconcile_apply($1, $1)", name)


def brief(rows: Iterable[Any]) -> list[tuple[str, str, str | None]]:
    """Of a plan what matters most: (action, competition, season)."""
    return [(row["action"], row["competition_id"], row["season_year"]) for row in rows]
