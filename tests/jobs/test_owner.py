"""The shipped systems belong to whoever installs them, which need not be a superuser nor the queue's owner."""

import asyncpg
import pytest

from worker import migrations

BUILT_UPON = """
    select c.oid::regclass::text || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
    join pg_type t on t.oid = a.atttypid
    where a.attnum > 0 and c.relkind in ('r', 'v') and t.typnamespace = 'worker'::regnamespace
      and c.relnamespace <> 'worker'::regnamespace
"""


@pytest.mark.parametrize("system", ["stats", "auto_sync", "sync", "games", "reconcile"])
async def test_an_owner_with_an_applications_rights_is_enough(connection: asyncpg.Connection, system: str) -> None:
    name = await connection.fetchval("select current_database()")
    await connection.execute(
        "create role an_installer in role worker_enqueue, worker_operate;"
        f" grant create on database {name} to an_installer; set role an_installer"
    )
    try:
        await migrations.install(connection, system)
        assert await connection.fetch(BUILT_UPON) == []  # its types are for the queue's owner alone to build upon
    finally:
        await connection.execute("reset role; drop owned by an_installer cascade; drop role an_installer")
