"""Who may do what to syncs: users see their own and write nothing, tenants see nobody else's, tokens are nobody's."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.jobs.syncs import configure, connect, install, start

TABLES = ("provider_accounts", "sync_runs", "sync_pages", "sync_orders", "claims", "alerts")
SEEN = "select count(*) from sync.{}"
ROLES = ("worker_enqueue", "worker_tenant", "worker_operate", "worker_read", "worker_run")
ORDER = (
    '[{"order_id": "A", "ordered_at": "2026-01-01", "updated_at": "2026-01-01", "quantity": 2, "shipped": 1,'
    ' "price": 3, "charged": 6}]'
)


@pytest.fixture
async def db(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> asyncpg.Connection:
    """Syncs of two users of a tenant, and of one of another; each stored an order, found a claim, raised an alert."""
    await install(connection, dsn, configure(tmp_path))
    for user, tenant in (("ann", "acme"), ("bob", "acme"), ("ann", "zeta")):
        await connect(connection, user, tenant=tenant)
        sync = await start(connection, user, tenant_id=tenant)
        await connection.execute("select sync.store_page($1, 1, null, null, $2)", sync, ORDER)
        await connection.execute("select sync.detect($1), sync.begin_detection($1)", sync)
        await connection.execute("select sync.record_alert(jsonb_build_object('id', $1::bigint), 'x')", sync)
    return connection


@asynccontextmanager
async def acting(
    db: asyncpg.Connection, role: str, user: str | None = None, tenant: str | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """In a transaction that is rolled back: this role, with this JWT."""
    transaction = db.transaction()
    await transaction.start()
    try:
        if user is not None or tenant is not None:
            claims = json.dumps({"sub": user, "tenant_id": tenant})
            await db.execute("select set_config('request.jwt.claims', $1, true)", claims)
        await db.execute(f"set local role {role}")
        yield db
    finally:
        await transaction.rollback()


@pytest.mark.parametrize(
    ("role", "user", "tenant", "seen"),
    [("worker_tenant", "ann", "acme", 1), ("worker_tenant", "bob", "acme", 1), ("worker_tenant", "ann", "zeta", 1),
     ("worker_tenant", "bob", "zeta", 0), ("worker_tenant", "ann", None, 0), ("worker_tenant", None, "acme", 0),
     ("worker_tenant", None, None, 0), ("worker_enqueue", None, "acme", 2), ("worker_enqueue", None, None, 3),
     ("worker_read", None, None, 3), ("worker_operate", None, None, 3), ("worker_run", None, None, 3)],
)  # fmt: skip
async def test_who_sees_how_much(
    db: asyncpg.Connection, role: str, user: str | None, tenant: str | None, seen: int
) -> None:
    relations = (
        "syncs",
        "sync_progress",
        "detection_queue",
        "sync_runs",
        "sync_pages",
        "sync_orders",
        "claims",
        "alerts",
    )
    async with acting(db, role, user, tenant):
        counts = {name: await db.fetchval(SEEN.format(name)) for name in relations}
        assert counts == dict.fromkeys(relations, seen)
        assert (await db.fetchval("select (sync.statistics()).total")) == seen
        assert len(await db.fetch("select * from sync.history('ann')")) <= seen


async def test_an_operator_of_one_s_own_opens_nobody_else_s_rows(db: asyncpg.Connection) -> None:
    await db.execute(
        "create schema own; grant usage on schema own to public;"
        " create function own.yes(text, text) returns boolean language sql immutable as 'select true';"
        " create operator own.= (leftarg = text, rightarg = text, function = own.yes)"
    )
    async with acting(db, "worker_tenant", "ann", "acme"):
        await db.execute("set local search_path = own, pg_catalog")
        assert await db.fetchval("select 'a'::text = 'b'::text")
        for name in ("syncs", "sync_runs", "sync_orders", "claims"):
            assert await db.fetchval(SEEN.format(name)) == 1, name


async def test_a_user_asks_for_somebody_else_in_vain(db: asyncpg.Connection) -> None:
    bobs = await db.fetchval("select sync_id from sync.syncs where user_id = 'bob'")
    async with acting(db, "worker_tenant", "ann", "acme"):
        assert await db.fetch("select * from sync.history('bob')") == []
        assert '"idle"' in await db.fetchval("select sync.status('bob')")
        assert '"pages": 0' in await db.fetchval("select sync.count_rows($1)", bobs)
        for question in ("select sync.status('bob', $1)", "select sync.results('ann', $1)"):
            with pytest.raises(asyncpg.PostgresError, match="has no sync"):
                async with db.transaction():
                    await db.fetch(question, bobs)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("table", TABLES)
async def test_nobody_writes_to_a_table(db: asyncpg.Connection, role: str, table: str) -> None:
    column = "page" if table == "sync_pages" else "user_id"
    writes = (f"insert into sync.{table} default values", f"update sync.{table} set {column} = null",
              f"delete from sync.{table}", f"truncate sync.{table}")  # fmt: skip
    async with acting(db, role, "ann", "acme"):
        for write in writes:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with db.transaction():
                    await db.execute(write)


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_reads_a_token(db: asyncpg.Connection, role: str) -> None:
    async with acting(db, role):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.fetch("select token from sync.provider_accounts")


async def sqlstate(db: asyncpg.Connection, question: str) -> str | None:
    """Of the error that a question ends with; one of ours, or a lack of rights."""
    try:
        async with db.transaction():
            await db.execute(question)
    except asyncpg.PostgresError as error:
        if error.sqlstate != "42501" and not str(error.sqlstate).startswith("SY"):
            raise
        return error.sqlstate
    return None


@pytest.mark.parametrize(
    ("call", "allowed"),
    [("sync.connect('ann', 'seller', 'x')", "worker_enqueue worker_operate"),
     ("sync.disconnect('ann', 'seller')", "worker_enqueue worker_operate"),
     ("sync.start('nobody')", "worker_enqueue worker_operate"),
     ("sync.bulk_start('[{}]')", "worker_enqueue worker_operate"),
     ("sync.cancel('nobody')", "worker_enqueue worker_operate"),
     ("sync.queue_status()", "worker_enqueue worker_operate worker_read worker_run"),
     ("sync.health()", "worker_enqueue worker_operate worker_read worker_run"),
     ("sync.force_clear('nobody')", "worker_operate"),
     ("sync.cleanup()", "worker_operate worker_run"),
     ("sync.open_run(1)", "worker_run"),
     ("sync.store_page(1, 9, '', '', '[]')", "worker_run"),
     ("sync.reject_token(1)", "worker_run"),
     ("sync.begin_detection(1)", "worker_run"),
     ("sync.detection(1, '1 minute')", "worker_run"),
     ("sync.detect(1)", "worker_run"),
     ("sync.record_alert('{}', '')", "worker_run"),
     ("sync.start_due()", "worker_run")],
)  # fmt: skip
async def test_who_may_call_what(db: asyncpg.Connection, call: str, allowed: str) -> None:
    may = set()
    for role in ROLES:
        async with acting(db, role):
            if await sqlstate(db, f"select {call}") != "42501":
                may.add(role)
    assert may == set(allowed.split())


async def test_an_application_ends_only_what_is_its_tenant_s(db: asyncpg.Connection) -> None:
    async with acting(db, "worker_enqueue", None, "acme"):
        assert '"acme"' in await db.fetchval("select sync.cancel('ann')")
        with pytest.raises(asyncpg.PostgresError, match="no active sync"):
            async with db.transaction():
                await db.fetchval("select sync.cancel('ann')")
        with pytest.raises(asyncpg.PostgresError, match="acts for tenant"):
            await db.fetchval("select sync.start('ann', tenant_id => 'zeta')")


async def test_a_daemon_that_is_no_superuser_can_run_it(db: asyncpg.Connection) -> None:
    """What the handler and the steps call, with the daemon's rights alone."""
    sync = await db.fetchval("select sync_id from sync.syncs where user_id = 'bob'")
    async with acting(db, "worker_run"):
        opened = await db.fetchrow("select * from sync.open_run($1)", sync)
        assert (opened["token"], opened["page"], opened["fetched"], opened["detecting"]) == ("secret", 1, True, True)
        assert await db.fetchval("select sync.detection($1, '1 minute')", sync) == "running"
        assert '"claims": 1' in await db.fetchval("select sync.count_rows($1)", sync)
