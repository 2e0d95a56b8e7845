"""The demo's SQL: applied again at any time, and every function says what it does."""

import asyncpg

from tests.jobs.stats_database import install
from worker.demo import tables
from worker.demo.club import generate


async def test_every_function_has_a_comment(connection: asyncpg.Connection) -> None:
    await install(connection)
    for name in ("club", "watch", "club", "watch"):
        await tables.apply(connection, name)
    functions = await connection.fetch(
        "select proname, obj_description(oid, 'pg_proc') from pg_proc where pronamespace = 'demo'::regnamespace"
    )
    assert len(functions) > 5
    assert [name for name, comment in functions if not comment] == []


async def test_a_club_is_loaded_without_jobs_and_played_with_them(connection: asyncpg.Connection) -> None:
    """Also where the trigger is there before the history."""
    await install(connection, trigger=True)
    made = generate(5, players=24, matches=10, seasons=1)
    await tables.load(connection, made)
    await tables.apply(connection, "watch")
    assert await connection.fetchval("select demo.newest_job()") is None
    match = await tables.finish_match(connection, made.tenants[0].id)
    assert await connection.fetchval("select demo.job_of($1)", match) is not None
    await tables.add_matches(connection, made.tenants[0].id, 3, finished=True)
    assert await connection.fetchval("select demo.matches_behind($1)", made.tenants[0].id) == 10 + 1 + 3
