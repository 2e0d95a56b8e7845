"""`worker schedule list | run | pause | resume`, and what `worker migrate` and `worker check` say of schedules."""

from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tests.cli.support import JOBS, Cli
from tests.heart import configured, daemon, until, write_config

HOURLY = '[schedule.hourly]\ncron = "0 * * * *"\njob = "fine"\npayload = { a = 1 }\n'
JOBS_AND = f"{JOBS}\n{HOURLY}"
EACH = '[schedule.each]\ncron = "30 2 * * *"\nzone = "Europe/Berlin"\njob = "fine"\nfor_each = "clubs"\n'
CLUBS = "create function clubs() returns table (n integer) language sql as $$ values (1), (2) $$"


@pytest.fixture
async def timed(cli: Cli, connection: asyncpg.Connection, tmp_path: Path) -> Cli:
    """The command line over a configuration with two schedules, declared at noon."""
    write_config(tmp_path, JOBS_AND + EACH)
    await connection.execute("select worker.set_clock($1)", datetime(2026, 11, 22, 12, tzinfo=UTC))
    await connection.execute(CLUBS)
    assert (await cli("migrate")).code == 0
    return cli


class TestMigrate:
    async def test_declares_and_works_out_the_next_run(self, timed: Cli, connection: asyncpg.Connection) -> None:
        rows = await connection.fetch("select name, next_at from worker.schedule order by name")
        assert [tuple(row) for row in rows] == [
            ("each", datetime(2026, 11, 23, 1, 30, tzinfo=UTC)),
            ("hourly", datetime(2026, 11, 22, 13, tzinfo=UTC)),
        ]

    async def test_says_what_changed(self, timed: Cli, tmp_path: Path) -> None:
        assert (await timed("migrate")).out == "the schema is up to date\n"
        write_config(tmp_path, f"{JOBS}\n" + HOURLY.replace("a = 1", "a = 2"))
        said = (await timed("migrate")).out.splitlines()
        assert said == ["disabled schedule each", "changed schedule hourly"]

    async def test_print_declares_them_too(self, timed: Cli, connection: asyncpg.Connection) -> None:
        script = (await timed("migrate", "--print")).out
        await connection.execute("delete from worker.schedule")
        await connection.execute(script)
        assert await connection.fetchval("select count(*) from worker.schedule where enabled") == 2


class TestList:
    async def test_for_people(self, timed: Cli) -> None:
        answer = await timed("schedule", "list")
        head, each, hourly = answer.out.splitlines()
        assert head.split()[:3] == ["name", "state", "cron"]
        assert each.split()[:2] == ["each", "on"]
        assert "Europe/Berlin" in each
        assert "2026-11-22 13:00:00Z" in hourly

    async def test_for_programs(self, timed: Cli, connection: asyncpg.Connection) -> None:
        await connection.execute("select worker.pause_schedule('each')")
        each, hourly = (await timed("schedule", "list", "--json")).value
        assert (each["name"], each["state"], each["for_each"], each["last_at"]) == ("each", "paused", "clubs", None)
        assert (hourly["name"], hourly["state"], hourly["cron"]) == ("hourly", "on", "0 * * * *")

    async def test_none(self, cli: Cli) -> None:
        assert (await cli("schedule", "list")).out.startswith("no schedules")
        assert (await cli("schedule", "list", "--json")).value == []


class TestRun:
    async def test_adds_its_job_now(self, timed: Cli, connection: asyncpg.Connection) -> None:
        answer = await timed("schedule", "run", "hourly")
        assert (answer.code, answer.out) == (0, "fired hourly: 1 job added\n")
        assert await connection.fetchval("select payload ->> 'a' from worker.job_queue") == "1"

    async def test_a_daemon_reads_the_rows(self, timed: Cli, dsn: str, tmp_path: Path) -> None:
        async with daemon(configured(tmp_path, dsn, JOBS_AND + EACH)):
            answer = await timed("schedule", "run", "each", "--json")
        assert (answer.code, answer.value) == (0, {"name": "each", "jobs": 2, "error": None})

    async def test_what_fails_is_a_no(
        self, timed: Cli, dsn: str, tmp_path: Path, connection: asyncpg.Connection
    ) -> None:
        await connection.execute("drop function clubs()")
        async with daemon(configured(tmp_path, dsn, JOBS_AND + EACH)):
            answer = await timed("schedule", "run", "each")
        assert (answer.code, "function clubs() does not exist" in answer.out) == (1, True)

    async def test_no_daemon_is_a_no_for_now(
        self, timed: Cli, monkeypatch: pytest.MonkeyPatch, connection: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("worker.cli.schedule.TAKE_SECONDS", 0.2)
        answer = await timed("schedule", "run", "each")
        assert (answer.code, "no daemon has fired each so far" in answer.out) == (1, True)
        async with daemon(configured(tmp_path, dsn, JOBS_AND + EACH)):
            await until(connection, "select count(*) = 2 from worker.job_queue")


class TestPause:
    async def test_and_resume(self, timed: Cli, connection: asyncpg.Connection) -> None:
        said = [(await timed("schedule", verb, "hourly")).out for verb in ("pause", "pause", "resume", "resume")]
        assert said == [
            "paused hourly; `worker schedule resume hourly` goes on\n",
            "hourly was paused already\n",
            "resumed hourly\n",
            "hourly was not paused\n",
        ]
        assert await connection.fetchval("select count(*) from worker.job_event") == 2

    @pytest.mark.parametrize("verb", ["run", "pause", "resume"])
    async def test_what_nobody_declared(self, timed: Cli, verb: str) -> None:
        answer = await timed("schedule", verb, "gone")
        assert (answer.code, 'nobody declared the schedule "gone"' in answer.err) == (2, True)
