"""kill -9 of a daemon in the middle of syncs: no page is stored twice, no sync is lost, nothing is begun anew."""

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.heart import QUICK, becomes
from tests.jobs.syncs import ASLEEP, HANGS, USER, configure, connect, one, prepare, results, start, status, until
from tests.processes import Fleet, fleet
from worker.demo.provider import Provider, make_orders, owed

ORDERS = make_orders(5, 50)  # five pages
USERS = [f"user{number}" for number in range(6)]
ENDED = "select count(*) from worker.job_queue where job_type = 'sync' and status = 'completed' having count(*) = $1"
NAPS_ONCE = """
create sequence naps;
grant usage on sequence naps to public;
create function nap() returns trigger language plpgsql as
  $$ begin if new.page = 3 and nextval('public.naps') = 1 then perform pg_sleep(600); end if; return null; end $$;
create trigger slow after insert on sync.sync_pages for each row execute function nap();
"""


@pytest.fixture
async def provider():
    async with Provider(ORDERS, size=10) as serving:
        yield serving


@pytest.fixture
async def config(connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider) -> Path:
    return await prepare(connection, dsn, tmp_path, provider, settings="answer_within = 60")


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


async def test_kill_in_mid_store_leaves_no_half_page(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    await connection.execute(NAPS_ONCE)
    first = daemons.start(config)
    sync = await start(connection)
    await until(connection, f"select ({ASLEEP}) = 1")
    first.kill()
    assert await connection.fetchval("select count(*) from sync.sync_orders") == 20
    daemons.start(config)
    await until(connection, ENDED, 1)
    told = await results(connection, sync)
    assert (told["pages"], told["orders"], told["added"], told["changed"]) == (5, 50, 50, 0)
    assert provider.asked == {1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    steps = await connection.fetch("select name from worker.job_step where job_id = $1 order by name", sync)
    assert [row[0] for row in steps] == ["count", "detect", *(f"page_{page}" for page in range(1, 6))]


async def test_kill_while_it_waits_for_its_detection_begins_no_second_one(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    await connection.execute("select worker.pause('sync_detect')")
    first = daemons.start(config)
    sync = await start(connection)
    await until(connection, "select progress = 90 from sync.active($1)", USER)
    first.kill()
    assert (await status(connection))["progress"] == 90
    daemons.start(config)
    await connection.execute("select worker.resume('sync_detect')")
    await until(connection, ENDED, 1)
    assert await connection.fetchval("select count(*) from worker.job_queue where job_type = 'sync_detect'") == 1
    told = await results(connection, sync)
    assert (told["detection"], told["claims"]) == ("completed", owed(ORDERS))
    assert sum(provider.asked.values()) == provider.pages


async def test_no_sync_is_lost_when_six_are_under_way(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    provider.trouble(3, *[HANGS] * len(USERS))
    first = daemons.start(config)
    for user in USERS:
        await connect(connection, user)
        await start(connection, user)
    await until(connection, "select count(*) = $1 from sync.syncs where page = 2", len(USERS))
    await becomes(lambda: provider.asked[3] == len(USERS))
    first.kill()
    daemons.start(config)
    daemons.start(config)
    await until(connection, ENDED, len(USERS))
    assert provider.asked == {1: 6, 2: 6, 3: 12, 4: 6, 5: 6}
    stored = await connection.fetch("select user_id, count(*) from sync.sync_orders group by 1 order by 1")
    assert [tuple(row) for row in stored] == [(user, 50) for user in USERS]
    told = await one(connection, "select total, successful, running from sync.statistics()")
    assert told == {"total": 6, "successful": 6, "running": 0}


async def test_killed_again_and_again_each_page_is_stored_once(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    users = [f"user{number}" for number in range(12)]
    for user in users:
        await connect(connection, user)
        await start(connection, user)
    for pages in (8, 20, 32):
        killed = daemons.start(config)
        await until(connection, "select count(*) >= $1 from sync.sync_pages", pages)
        killed.kill()
    daemons.start(config)
    await until(connection, ENDED, len(users))
    stored = await connection.fetch("select user_id, count(*) from sync.sync_orders group by 1")
    assert {row[0]: row[1] for row in stored} == dict.fromkeys(users, 50)
    told = await connection.fetch("select pages, orders, added, changed, claims from sync.sync_runs,"
                                  " jsonb_to_record(sync.count_rows(sync_id)) as c (pages int, orders int, added int,"
                                  " changed int, claims int)")  # fmt: skip
    assert {tuple(row) for row in told} == {(5, 50, 50, 0, owed(ORDERS))}
    assert await connection.fetchval("select count(*) from worker.job_queue where job_type = 'sync_detect'") == 12


async def test_a_stop_in_good_order_hands_it_to_the_next(
    connection: asyncpg.Connection, config: Path, provider: Provider, daemons: Fleet
) -> None:
    provider.trouble(4, HANGS)
    hasty = QUICK.replace('grace = "10s"', 'grace = "100ms"')
    first = daemons.start(configure(config.parent, provider, hasty, settings="answer_within = 60"))
    sync = await start(connection)
    await until(connection, "select page = 3 from sync.active($1)", USER)
    await becomes(lambda: provider.asked[4] == 1)
    first.send(15)
    assert first.ends() == 0
    assert (await status(connection))["status"] == "running"
    daemons.start(config)
    await until(connection, ENDED, 1)
    assert (await status(connection, USER, sync))["attempt"] == 1  # what was handed back does not count
    assert provider.asked == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1}
