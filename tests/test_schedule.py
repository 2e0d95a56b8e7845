"""Daemons fire schedules: under a clock that is moved by weeks, several of them, and over kill -9."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import structlog

from tests.bouncer import bouncer, find
from tests.heart import QUICK, becomes, configured, daemon, heart, until, write_config
from tests.processes import Fleet, fleet
from worker.config import Config
from worker.metrics import Metrics
from worker.schedule import SEEN_AHEAD, Schedules
from worker.service import run
from worker.stop import Stop
from worker.timetable import Timetable

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGIN = datetime(2026, 10, 18, 12, tzinfo=UTC)  # within two weeks the clocks of Berlin are changed
JOB = '[job.fine]\npython = "tests.cli.handlers:fine"\n'
NIGHTLY = '[schedule.nightly]\ncron = "30 2 * * *"\njob = "fine"\n'
HOURLY = '[schedule.hourly]\ncron = "@hourly"\njob = "fine"\n'
CLUBS = """
    create table club (tenant_id text);
    insert into club values ('a'), ('b'), ('c');
    create function clubs() returns table (tenant_id text) language plpgsql as
      $$ begin perform pg_advisory_lock_shared(77); return query select c.tenant_id from club c order by 1; end $$;
"""
GATE = 77
EACH = f'{HOURLY}for_each = "clubs"\n'


# Half past two of sixteen nights, of which the daemon is there for none; summer time ends in the seventh.
_NIGHTS = [BEGIN.replace(hour=2, minute=30) + n * DAY for n in range(16)]
NIGHTS = {
    "UTC": _NIGHTS,
    "Europe/Berlin": [night - (2 if n <= 7 else 1) * HOUR for n, night in enumerate(_NIGHTS)],
}
MISSED = {
    '"skip"': range(0),
    '"last"': range(14, 15),
    '"all"': range(5, 15),
    '"all"\nmax_catch_up = 100': range(1, 15),
}


async def set_clock(connection: asyncpg.Connection, at: datetime | None) -> None:
    await connection.execute("select worker.set_clock($1)", at)


async def next_run(connection: asyncpg.Connection, name: str, at: datetime) -> None:
    await until(connection, "select next_at = $2 from worker.schedule where name = $1", name, at)


async def runs(connection: asyncpg.Connection) -> list[datetime]:
    """The runs that jobs were made for, in their order."""
    rows = await connection.fetch("select scheduled_at from worker.job_queue order by scheduled_at, id")
    return [row["scheduled_at"] for row in rows]


@pytest.fixture
async def clock(connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database whose clock stands still."""
    await set_clock(connection, BEGIN)
    yield connection
    structlog.reset_defaults()


class TestDaemon:
    async def test_fires_when_it_is_time(self, clock: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        async with daemon(configured(tmp_path, dsn, JOB + HOURLY)):
            await next_run(clock, "hourly", BEGIN + HOUR)
            for n in range(1, 4):
                assert len(await runs(clock)) == n - 1
                await set_clock(clock, BEGIN + n * HOUR)
                await next_run(clock, "hourly", BEGIN + (n + 1) * HOUR)
        assert await runs(clock) == [BEGIN + n * HOUR for n in range(1, 4)]
        row = await clock.fetchrow("select source, priority, enqueued_by from worker.job_queue limit 1")
        assert row is not None
        assert tuple(row) == ("hourly", 100, "worker_owner")

    @pytest.mark.parametrize("zone", NIGHTS)
    @pytest.mark.parametrize("missed", MISSED)
    async def test_two_weeks_without_a_daemon(
        self, clock: asyncpg.Connection, dsn: str, tmp_path: Path, missed: str, zone: str
    ) -> None:
        config = configured(tmp_path, dsn, f'{JOB}{NIGHTLY}missed = {missed}\nzone = "{zone}"\n')
        nights, days = NIGHTS[zone], MISSED[missed]
        async with daemon(config):
            await next_run(clock, "nightly", nights[1])
        await set_clock(clock, BEGIN + 14 * DAY)
        async with daemon(config):
            await next_run(clock, "nightly", nights[15])
        assert await runs(clock) == [nights[n] for n in days]

    async def test_one_that_fails_holds_up_no_other(self, clock: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        broken = HOURLY.replace("hourly", "broken", 1) + 'for_each = "not_yet"\n'
        async with daemon(configured(tmp_path, dsn, JOB + broken + HOURLY)):
            await next_run(clock, "hourly", BEGIN + HOUR)
            await next_run(clock, "broken", BEGIN + HOUR)
            await set_clock(clock, BEGIN + HOUR)
            await until(clock, "select error like '42883: %' from worker.schedule where name = 'broken'")
            await next_run(clock, "hourly", BEGIN + 2 * HOUR)
            assert await clock.fetchval("select next_at from worker.schedule where name = 'broken'") == BEGIN + HOUR
            await clock.execute(
                "create function not_yet() returns table (n integer) language sql as $$ values (1), (2) $$"
            )
            await set_clock(clock, BEGIN + HOUR + timedelta(minutes=5))
            await next_run(clock, "broken", BEGIN + 2 * HOUR)
            assert await clock.fetchval("select error is null from worker.schedule where name = 'broken'")
        assert await runs(clock) == [BEGIN + HOUR] * 3

    async def test_one_that_hangs_holds_up_no_other(self, clock: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        await clock.execute(CLUBS + f"select pg_advisory_lock({GATE})")
        hanging = EACH.replace("hourly", "hanging", 1)
        async with daemon(configured(tmp_path, dsn, JOB + hanging + HOURLY)):
            await next_run(clock, "hanging", BEGIN + HOUR)
            await next_run(clock, "hourly", BEGIN + HOUR)
            await set_clock(clock, BEGIN + HOUR)
            await next_run(clock, "hourly", BEGIN + 2 * HOUR)
            await set_clock(clock, BEGIN + 2 * HOUR)
            await next_run(clock, "hourly", BEGIN + 3 * HOUR)
            assert await runs(clock) == [BEGIN + HOUR, BEGIN + 2 * HOUR]
            await clock.execute(f"select pg_advisory_unlock({GATE})")
            await next_run(clock, "hanging", BEGIN + 2 * HOUR)
            await until(clock, "select count(*) >= 5 from worker.job_queue")

    async def test_what_hangs_too_long_is_ended_and_noted(
        self, clock: asyncpg.Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("worker.schedule.DEADLINE", 0.3)
        await clock.execute(CLUBS + f"select pg_advisory_lock({GATE})")
        async with daemon(configured(tmp_path, dsn, JOB + EACH)):
            await next_run(clock, "hourly", BEGIN + HOUR)
            await set_clock(clock, BEGIN + HOUR)
            await until(clock, "select error like '57014: %' from worker.schedule")
            await clock.execute(f"select pg_advisory_unlock({GATE})")
            await set_clock(clock, BEGIN + HOUR + timedelta(minutes=5))
            await next_run(clock, "hourly", BEGIN + 2 * HOUR)
        assert await runs(clock) == [BEGIN + HOUR] * 3

    async def test_rows_become_jobs_of_their_tenants(self, clock: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        await clock.execute(f"create schema own; set search_path = own; {CLUBS} reset search_path")
        config = configured(tmp_path, dsn, JOB + EACH, database='search_path = "own, public"')
        async with daemon(config):
            await next_run(clock, "hourly", BEGIN + HOUR)
            await set_clock(clock, BEGIN + HOUR)
            await until(clock, "select count(*) = 3 from worker.job_queue where status = 'completed'")
        rows = await clock.fetch("select tenant_id from worker.job_queue order by id")
        assert [row["tenant_id"] for row in rows] == ["a", "b", "c"]

    async def test_an_operator_has_one_run_now(self, clock: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        await clock.execute(CLUBS)
        async with daemon(configured(tmp_path, dsn, JOB + EACH)):
            await next_run(clock, "hourly", BEGIN + HOUR)
            await clock.execute("select worker.run_schedule('hourly')")
            await until(clock, "select count(*) = 3 from worker.job_queue")
            await next_run(clock, "hourly", BEGIN + HOUR)
        assert await runs(clock) == [BEGIN] * 3

    async def test_a_row_that_cannot_be_read_is_noted(
        self, clock: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        async with daemon(configured(tmp_path, dsn, JOB + HOURLY)):
            await next_run(clock, "hourly", BEGIN + HOUR)
            await clock.execute("update worker.schedule set zone = 'Mars/Olympus'")
            await set_clock(clock, BEGIN + HOUR)
            await until(clock, "select error like '%Mars/Olympus%' from worker.schedule")

    async def test_what_left_the_file_is_disabled(self, clock: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        async with daemon(configured(tmp_path, dsn, JOB + HOURLY)):
            await next_run(clock, "hourly", BEGIN + HOUR)
        async with daemon(configured(tmp_path, dsn, JOB)):
            assert not await clock.fetchval("select enabled from worker.schedule")

    async def test_who_works_for_a_moment_fires_nothing(
        self, clock: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        config = configured(tmp_path, dsn, JOB + HOURLY)

        async def moment(poller: Any, queue: Any) -> None:
            await set_clock(clock, BEGIN + HOUR)
            await until(clock, "select count(*) > 0 from worker.process where beat_at > started_at")

        await run(config, Stop(), instead=moment)
        assert await clock.fetchval("select next_at is null from worker.schedule")


class TestSeveral:
    def config(self, folder: Path, jobs: str) -> Path:
        return write_config(folder, JOB + jobs, worker=f'{QUICK}\nkeep = {{ completed = "365d" }}')

    async def test_each_run_is_fired_once_by_three_daemons_over_two_weeks(
        self, clock: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        await clock.execute(CLUBS)
        twice = EACH.replace("@hourly", "0 0,12 * * *")
        with fleet(tmp_path, dsn) as daemons:
            path = self.config(tmp_path, twice)
            await asyncio.gather(*(asyncio.to_thread(daemons.start, path) for _ in range(3)))
            at = BEGIN
            for n in range(1, 29):
                await next_run(clock, "hourly", at := at + DAY / 2)
                await set_clock(clock, at)
                if n % 10 == 0:
                    await self.replace(daemons, path)
            await next_run(clock, "hourly", at + DAY / 2)
        counted = Counter(await runs(clock))
        assert counted == {BEGIN + n * DAY / 2: 3 for n in range(1, 29)}

    async def replace(self, daemons: Fleet, path: Path) -> None:
        victim = next(each for each in daemons.daemons if each.process.poll() is None)
        victim.kill()
        await asyncio.to_thread(daemons.start, path)

    async def test_a_kill_while_rows_are_read_loses_nothing_and_doubles_nothing(
        self, clock: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        await clock.execute(CLUBS + f"select pg_advisory_lock({GATE})")
        with fleet(tmp_path, dsn) as daemons:
            path = self.config(tmp_path, EACH)
            first = await asyncio.to_thread(daemons.start, path)
            await next_run(clock, "hourly", BEGIN + HOUR)
            await set_clock(clock, BEGIN + HOUR)
            waiting = "select count(*) > 0 from pg_locks where locktype = 'advisory' and objid = $1 and not granted"
            await until(clock, waiting, GATE)
            await asyncio.to_thread(daemons.start, path)
            first.kill()
            await clock.execute(f"select pg_advisory_unlock({GATE})")
            await next_run(clock, "hourly", BEGIN + 2 * HOUR)
        assert await runs(clock) == [BEGIN + HOUR] * 3


@pytest.mark.skipif(find() is None, reason="no pgbouncer")
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_rows_are_read_through_a_pooler(clock: asyncpg.Connection, dsn: str, tmp_path: Path, mode: str) -> None:
    await clock.execute(f"create schema own; set search_path = own; {CLUBS} reset search_path")
    with bouncer(dsn, mode) as pooler:
        async with daemon(configured(tmp_path, pooler.dsn, JOB + EACH, database='search_path = "own"')):
            await next_run(clock, "hourly", BEGIN + HOUR)
            await set_clock(clock, BEGIN + HOUR)
            await next_run(clock, "hourly", BEGIN + 2 * HOUR)
    assert await runs(clock) == [BEGIN + HOUR] * 3


class TestDuty:
    """The duty alone, over the pools of a process that nobody beats for."""

    @asynccontextmanager
    async def duties(self, dsn: str, number: int) -> AsyncIterator[tuple[Metrics, list[Schedules]]]:
        metrics = Metrics({}, ("nightly",))
        async with heart(dsn, ("fine",)) as parts:
            timetable = Timetable(parts.database.control, ["nightly"])
            made = [Schedules(timetable, parts.database.ways[1], "public", metrics) for _ in range(number)]
            tasks = [asyncio.create_task(each.run()) for each in made]
            try:
                yield metrics, made
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def declare(self, connection: asyncpg.Connection, at: datetime) -> None:
        given = [{"name": "nightly", "cron": "30 2 * * *", "job": "fine", "missed": "all", "digest": "d"}]
        await connection.execute("select worker.declare_schedules($1::jsonb, '{}')", orjson.dumps(given).decode())
        await connection.execute("update worker.schedule set next_at = $1", at)

    async def test_lateness_is_that_of_each_run(self, clock: asyncpg.Connection, dsn: str) -> None:
        first = BEGIN.replace(hour=2, minute=30)
        await self.declare(clock, first)
        await set_clock(clock, first + DAY + timedelta(seconds=2))
        async with self.duties(dsn, 1) as (metrics, (duty,)):
            duty.due(0)
            await next_run(clock, "nightly", first + 2 * DAY)
            value = metrics.registry.get_sample_value
            await becomes(lambda: value("worker_schedule_lateness_seconds_count", {"schedule": "nightly"}) == 2)
            within = {"schedule": "nightly", "le": "5.0"}
            assert value("worker_schedule_lateness_seconds_bucket", within) == 1
        assert await runs(clock) == [first, first + DAY]

    async def test_eight_that_wake_at_once(self, clock: asyncpg.Connection, dsn: str) -> None:
        first = BEGIN.replace(hour=2, minute=30)
        await self.declare(clock, first)
        async with self.duties(dsn, 8) as (_, duties):
            for n in range(30):
                await set_clock(clock, first + n * DAY)
                for duty in duties:
                    duty.due(0)
                await next_run(clock, "nightly", first + (n + 1) * DAY)
        assert await runs(clock) == [first + n * DAY for n in range(30)]

    async def test_what_is_far_away_is_told_again(self, clock: asyncpg.Connection, dsn: str) -> None:
        await self.declare(clock, BEGIN)
        async with self.duties(dsn, 1) as (_, (duty,)):
            duty.due(SEEN_AHEAD + 1)
            assert duty._timer is None
            duty.due(SEEN_AHEAD)
            assert duty._timer is not None


async def test_without_schedules_nothing_is_asked_for_them(dsn: str, tmp_path: Path) -> None:
    config: Config = configured(tmp_path, dsn, JOB)
    async with daemon(config):
        connection = await asyncpg.connect(dsn)
        try:
            await until(connection, "select count(*) > 0 from worker.process where beat_at > started_at")
            asked = """
                select query from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                  and query like '%beat_and_look%'
            """
            assert await until(connection, asked) == "select * from worker.beat_and_look($1, $2, $3)"
        finally:
            await connection.close()
