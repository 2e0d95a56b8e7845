"""The comments in the database are the manual that `\\df+ worker.*` prints."""

import asyncpg

UNCOMMENTED = """
    select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace = 'worker'::regnamespace and coalesce(obj_description(p.oid, 'pg_proc'), '') = ''
    order by 1
"""


async def test_every_function_has_a_comment(connection: asyncpg.Connection) -> None:
    assert await connection.fetchval("select count(*) from pg_proc where pronamespace = 'worker'::regnamespace") > 0
    assert [name for (name,) in await connection.fetch(UNCOMMENTED)] == []
