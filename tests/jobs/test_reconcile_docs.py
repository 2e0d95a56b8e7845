"""What docs/systems/reconcile.md gives people to run does run."""

import re

import asyncpg
import pytest

from tests.jobs import league
from tests.jobs.league import apply, collect, competition, plan
from tests.support import ROOT

PAGE = (ROOT / "docs" / "systems" / "reconcile.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


async def test_the_queries_of_the_page_run(connection: asyncpg.Connection) -> None:
    await league.install(connection)
    await collect(connection, "EPL")
    await competition(connection, "GHOST", "completed", seasons=2)
    before = await connection.fetch("table league.competition_progress")
    async with connection.transaction():
        await connection.execute("create role app_worker")
        for query in QUERIES:
            await connection.execute(re.sub(r"(?m)^(begin|commit);$", "", query))
        assert await connection.fetch("table league.competition_progress") == before
        await connection.execute("drop owned by app_worker; drop role app_worker")
    assert len(QUERIES) >= 10
    assert await connection.fetchval("select count(*) from worker.jobs where job_type = 'reconcile'") == 2


async def test_the_rights_of_the_page_are_enough(connection: asyncpg.Connection) -> None:
    """And those for looking allow no more."""
    await league.install(connection)
    await collect(connection, "EPL")
    look, write = [query for query in QUERIES if query.startswith("grant")]
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"create role app_worker; {look}; set local role app_worker")
        assert len(await plan(connection)) == 3
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await apply(connection)
        await connection.execute(f"reset role; {write}; set local role app_worker")
        assert len(await apply(connection)) == 3
        assert await plan(connection) == []
    finally:
        await transaction.rollback()
