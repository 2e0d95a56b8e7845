"""Every night a job for each active club, by the shipped worker.toml; and all clubs at once, for an operator."""

from datetime import UTC, datetime, timedelta

import asyncpg
import orjson

from tests.heart import daemon, until
from tests.jobs.stats_database import install
from tests.jobs.webhook import loaded
from worker.config import Config
from worker.demo.club import Club
from worker.demo.receiver import Receiver
from worker.demo.tables import finish_match

EVENING = datetime(2026, 11, 22, 21, tzinfo=UTC)
NIGHT = datetime(2026, 11, 23, 2, tzinfo=UTC)
DAY = timedelta(days=1)
PLANNED = "select next_at = $1 from worker.schedule where name = 'nightly_stats'"
DONE = "select count(*) = $1 from worker.job_queue where job_type = 'stats_update' and finished_at is not null"


async def jobs(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch("select * from worker.job_queue where job_type = 'stats_update' order by id")


async def clock(connection: asyncpg.Connection, at: datetime) -> None:
    await connection.execute("select worker.set_clock($1)", at)


async def test_each_active_club_every_night(connection: asyncpg.Connection, config: Config, clubs: Club) -> None:
    await clock(connection, EVENING)
    await connection.execute("update club.tenant set active = false where id = $1", clubs.tenants[1].id)
    active = [str(tenant.id) for tenant in clubs.tenants if tenant is not clubs.tenants[1]]
    async with daemon(config):
        await until(connection, PLANNED, NIGHT)
        for night in range(2):
            await clock(connection, NIGHT + night * DAY)
            await until(connection, PLANNED, NIGHT + (night + 1) * DAY)
            await until(connection, DONE, 2 * (night + 1))
    rows = await jobs(connection)
    assert [row["tenant_id"] for row in rows] == sorted(active) * 2
    assert {(row["priority"], row["source"], row["status"]) for row in rows} == {(200, "nightly", "completed")}
    assert orjson.loads(rows[0]["payload"]) == {"tenant_id": min(active)}
    assert await connection.fetchval("select count(distinct tenant_id) from club.all_time_stats") == 2


async def test_a_night_without_a_worker_is_made_up_for_once(
    connection: asyncpg.Connection, config: Config, clubs: Club
) -> None:
    await clock(connection, EVENING)
    async with daemon(config):
        await until(connection, PLANNED, NIGHT)
    await clock(connection, NIGHT + 5 * DAY + timedelta(hours=3))
    async with daemon(config):
        await until(connection, PLANNED, NIGHT + 6 * DAY)
        await until(connection, DONE, 3)
    assert {row["scheduled_at"] for row in await jobs(connection)} == {NIGHT + 5 * DAY}


async def test_a_club_whose_job_waits_has_no_second_one(
    connection: asyncpg.Connection, config: Config, clubs: Club
) -> None:
    await clock(connection, EVENING)
    await connection.execute("update worker.job_type set paused = true where name = 'stats_update'")
    await finish_match(connection, clubs.tenants[0].id)
    async with daemon(config):
        await until(connection, PLANNED, NIGHT)
        await clock(connection, NIGHT)
        await until(connection, PLANNED, NIGHT + DAY)
    assert [(row["priority"], row["source"]) for row in await jobs(connection)] == [
        (50, "match"), (200, "nightly"), (200, "nightly"),
    ]  # fmt: skip


async def test_nightly_has_a_flag_of_its_own(
    connection: asyncpg.Connection, config: Config, clubs: Club, dsn: str, receiver: Receiver
) -> None:
    text = config.path.read_text(encoding="utf-8").replace("nightly = true", "nightly = false")
    config.path.write_text(text, encoding="utf-8")
    await clock(connection, EVENING)
    async with daemon(loaded(config.path, dsn, receiver)):
        await until(connection, PLANNED, NIGHT)
        await clock(connection, NIGHT)
        await until(connection, DONE, 3)
    assert {(row["status"], row["finish_reason"]) for row in await jobs(connection)} == {("skipped", "source_off")}


class TestTriggerAll:
    async def test_a_job_for_every_active_club(self, connection: asyncpg.Connection, clubs: Club) -> None:
        await connection.execute("update club.tenant set active = false where id = $1", clubs.tenants[1].id)
        assert await connection.fetchval("select club.trigger_all()") == 2
        rows = await jobs(connection)
        assert {(row["priority"], row["source"]) for row in rows} == {(100, "admin")}
        assert orjson.loads(rows[0]["payload"])["triggeredBy"] == "superadmin"

    async def test_not_twice_while_they_wait(self, connection: asyncpg.Connection, clubs: Club) -> None:
        answers = [await connection.fetchval("select club.trigger_all()") for _ in range(2)]
        assert (answers, len(await jobs(connection))) == ([3, 0], 3)

    async def test_no_club_is_no_job(self, connection: asyncpg.Connection) -> None:
        await install(connection)
        assert await connection.fetchval("select club.trigger_all()") == 0

    async def test_the_nightly_run_at_once(self, connection: asyncpg.Connection, config: Config, clubs: Club) -> None:
        async with daemon(config):
            await until(connection, "select next_at is not null from worker.schedule")
            await connection.execute("select worker.run_schedule('nightly_stats')")
            await until(connection, DONE, 3)
        assert {row["source"] for row in await jobs(connection)} == {"nightly"}
