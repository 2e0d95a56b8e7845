"""What `worker check` says of the sync manager, and that it needs no more rights than it says."""

import os
import uuid
from pathlib import Path

import asyncpg
import pytest

from tests.heart import daemon, until
from tests.jobs.syncs import configure, connect, end, install, results, start
from worker import migrations
from worker.check import Finding, examine
from worker.config import Config, load
from worker.demo.provider import Provider, make_orders, owed

WHOLE = ("ok", "installed: types and rights are there")


@pytest.fixture
async def config(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> Config:
    path = configure(tmp_path)
    await install(connection, dsn, path)
    await connect(connection)
    return load(path, {"DATABASE_URL": dsn})


async def told(config: Config) -> list[Finding]:
    return [each for each in await examine(config) if each.subject == "sync"]


@pytest.mark.parametrize(
    ("change", "level", "said"),
    [("select 1", "ok", WHOLE[1]),
     ("delete from worker.type_slot; delete from worker.job_type where name = 'sync_detect'", "fault", "not declared"),
     ("update worker.job_type set unique_while = 'waiting' where name = 'sync'", "fault", "without unique_key"),
     ("alter table sync.claims disable row level security", "fault", "row-level security of sync.claims is off"),
     ("select worker.pause('sync')", "warning", "syncs are paused"),
     ("update worker.job_type set then_failed = '{}' where name = 'sync'", "warning", "nobody is told"),
     ("update sync.provider_accounts set rejected_at = now()", "warning", "1 users have to connect again"),
     ("select sync.start('ann'); update worker.job_queue set scheduled_at = now() - interval '6 minutes'", "warning",
      "1 syncs are due for more than 5 minutes")],
)  # fmt: skip
async def test_the_doctor_says_how_it_is(
    connection: asyncpg.Connection, config: Config, change: str, level: str, said: str
) -> None:
    await connection.execute(change)
    found = await told(config)
    assert [each.level for each in found if said in each.said] == [level], found
    assert all(each.cure for each in found if each.level != "ok")
    assert ((found[0].level, found[0].said) == WHOLE) is (level != "fault")


async def test_syncs_that_gave_up_are_told(connection: asyncpg.Connection, config: Config) -> None:
    sync = await start(connection)
    await end(connection, sync, "failed")
    await connection.execute("select sync.record_alert(jsonb_build_object('id', $1::bigint), 'ProviderDown: x')", sync)
    assert [each.said for each in await told(config)] == [
        WHOLE[1], "1 syncs gave up within a day, API_DOWN", "of the syncs of a day 0.0 % were completed",
    ]  # fmt: skip


async def test_where_it_is_not_installed_nothing_is_said(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    config = load(configure(tmp_path), {"DATABASE_URL": dsn})
    assert await told(config) == []
    await migrations.install(connection, "sync")
    assert [each.level for each in await told(config)] == ["fault"] * 3


async def test_a_daemon_and_an_application_without_more_rights_do_it_all(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    if "DATABASE_URL" in os.environ:
        pytest.skip("a login without a password is for our own server")
    name = f"sync_{uuid.uuid4().hex[:12]}"
    orders = make_orders(2, 30)
    async with Provider(orders, size=10) as provider:
        path = configure(tmp_path, provider)
        await install(connection, dsn, path)
        await connection.execute(f"create role {name} login in role worker_run")
        try:
            async with daemon(load(path, {"DATABASE_URL": dsn.replace("postgres@", f"{name}@", 1)})):
                await connection.execute("set role worker_enqueue")
                await connect(connection)
                sync = await start(connection)
                await until(connection, "select status = 'completed' from sync.history('ann')", seconds=60)
                told = await results(connection, sync)
                assert (told["orders"], told["claims"], told["detection"]) == (30, owed(orders), "completed")
        finally:
            await connection.execute("reset role")
            await until(connection, "select count(*) = 0 from pg_stat_activity where usename = $1", name)
            await connection.execute(f"drop owned by {name}; drop role {name}")
