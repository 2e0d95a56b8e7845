"""What docs/systems/games.md gives people to run does run, and names settings and functions that exist."""

import re
from dataclasses import fields

import asyncpg

from tests.jobs import games
from tests.jobs.games import PAGE
from tests.support import ROOT
from worker.jobs.games.terms import Terms

QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


async def test_the_queries_of_the_page_run(connection: asyncpg.Connection) -> None:
    await games.install(connection)
    for query in QUERIES:
        await connection.execute(query)
    assert len(QUERIES) >= 8
    assert await connection.fetchval("select count(*) from games.sync_jobs where status = 'pending'") == 1


async def test_every_function_and_column_that_the_page_names_exists(connection: asyncpg.Connection) -> None:
    await games.install(connection)
    named = set(re.findall(r"`games\.(\w+)", PAGE))
    made = await connection.fetch("select proname from pg_proc where pronamespace = 'games'::regnamespace")
    kept = await connection.fetch("select relname from pg_class where relnamespace = 'games'::regnamespace")
    assert named - {row[0] for row in [*made, *kept]} == set()


def test_every_setting_is_on_the_page_with_its_default() -> None:
    told = PAGE.partition("## Settings")[2].partition("**Rights.**")[0].splitlines()
    for setting in fields(Terms):
        (row,) = [row for row in told if f"`{setting.name}`" in row.partition("| ")[2].partition(" |")[0]]
        value = f"`{setting.default:.15g}`" if isinstance(setting.default, int | float) else f'`"{setting.default}"`'
        assert value in row or not setting.default, setting.name


def test_every_sqlstate_is_on_the_page_and_raised() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "sql" / "jobs" / "games").glob("*.sql"))
    assert set(re.findall(r"GS\d{3}", PAGE)) == set(re.findall(r"GS\d{3}", sources))
