"""retry, pause, resume, explain, run --once, migrate --print, uninstall --print, check: answers and exit codes."""

import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.cli.support import Cli
from tests.cli.test_roles import become
from tests.conftest import Given
from tests.heart import enqueue
from worker.embedded import Embedded


async def fail(connection: asyncpg.Connection, *jobs: int) -> None:
    await connection.execute(
        "update worker.job_queue set status = 'failed', trouble = true, queued = false, held_key = null,"
        " finish_reason = 'exhausted', started_at = now(), finished_at = now() where id = any ($1::bigint[])",
        jobs,
    )


class TestRetry:
    async def test_asks_and_says_what_it_will_do(self, cli: Cli, connection: asyncpg.Connection) -> None:
        await fail(connection, await enqueue(connection, "fine"))
        refused, done = await cli("retry", "1"), await cli("retry", "1", "--yes")
        assert (refused.code, refused.out, done.code) == (2, "", 0)
        assert "on test: retry the failed fine job 1; finished steps are kept" in refused.err
        assert await connection.fetchval("select status from worker.jobs") == "pending"
        assert "job 1 is pending" in done.out

    async def test_fresh_forgets_steps(self, cli: Cli, connection: asyncpg.Connection) -> None:
        await fail(connection, await enqueue(connection, "fine"))
        await connection.execute(
            "insert into worker.job_step (job_id, name, status, claim) values (1, 'a', 'completed', 1)"
        )
        answer = await cli("retry", "1", "--fresh", "--yes")
        assert "from its first step" in answer.err
        assert await connection.fetchval("select count(*) from worker.job_step") == 0

    async def test_what_cannot_be_retried(self, cli: Cli, connection: asyncpg.Connection) -> None:
        await enqueue(connection, "fine")
        pending, unknown = await cli("retry", "1", "--yes"), await cli("retry", "9", "--yes")
        assert (pending.code, unknown.code) == (2, 2)
        assert "only failed and cancelled jobs are retried" in pending.err
        assert "there is no job 9" in unknown.err

    async def test_a_held_key_is_a_no(self, cli: Cli, connection: asyncpg.Connection) -> None:
        await fail(connection, await enqueue(connection, "fine", unique_key="u"))
        await connection.execute("update worker.job_queue set unique_while = 'active'")
        await enqueue(connection, "fine", unique_key="u")
        one = await cli("retry", "1", "--yes")
        assert (one.code, "job 2 holds its unique key" in one.err) == (1, True)

    @pytest.mark.parametrize(
        "arguments",
        [(), ("1", "--failed"), ("--type", "fine"), ("1", "--type", "fine"), ("1", "--rate", "1/s"), ("1", "--dry-run"),
         ("--failed", "--cancelled")],
    )  # fmt: skip
    async def test_one_or_many(self, cli: Cli, arguments: tuple[str, ...]) -> None:
        answer = await cli("retry", *arguments)
        assert (answer.code, "either ID, or --failed or --cancelled" in answer.err) == (2, True)

    async def test_as_json(self, cli: Cli, connection: asyncpg.Connection) -> None:
        await fail(connection, await enqueue(connection, "fine"))
        assert (await cli("retry", "1", "--yes", "--json")).value == {"id": 1, "status": "pending"}


async def test_pause_and_resume(cli: Cli, connection: asyncpg.Connection) -> None:
    await cli("migrate")
    told = [(await cli(verb, "fine")).out for verb in ("pause", "pause", "resume", "resume")]
    assert told == [
        "paused fine; `worker resume fine` goes on\n",
        "fine was paused already\n",
        "resumed fine\n",
        "fine was not paused\n",
    ]
    unknown = await cli("pause", "nothing")
    assert (unknown.code, 'nobody declared the type "nothing"' in unknown.err) == (2, True)


async def test_explain(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "unheard_of")
    found = (await cli("explain", "1", "--json")).value
    assert (found["id"], found["code"]) == (1, "no_worker_for_type")
    assert found["sentence"] in (await cli("explain", "1")).out
    unknown = await cli("explain", "9")
    assert (unknown.code, "there is no job 9" in unknown.err) == (2, True)


async def test_operators_and_readers_may(cli: Cli, connection: asyncpg.Connection) -> None:
    await cli("migrate")
    await fail(connection, await enqueue(connection, "fine"))
    dsn = cli.dsn
    become(cli, "worker_operate")
    codes = [(await cli(*verb)).code for verb in (("retry", "1", "--yes"), ("pause", "fine"), ("explain", "1"))]
    assert codes == [0, 0, 0]
    cli.dsn = dsn
    become(cli, "worker_read")
    assert [(await cli(*verb)).code for verb in (("resume", "fine"), ("explain", "1"))] == [2, 0]


class TestOnce:
    async def test_runs_what_is_due_and_ends(self, cli: Cli, connection: asyncpg.Connection) -> None:
        for job_type in ("fine", "fine", "stumbles", "follows"):
            await enqueue(connection, job_type)
        answer = await cli.process("run", "--once")
        assert (answer.code, answer.out) == (0, "ran: 3 completed\n"), answer.err
        left = await connection.fetch("select job_type from worker.jobs where status = 'pending' order by id")
        assert left == [("stumbles",), ("fine",)]  # the retry and the follow-up are the next run's

    async def test_a_failed_job_is_a_no(self, cli: Cli, connection: asyncpg.Connection) -> None:
        await enqueue(connection, "fails")
        answer = await cli.process("run", "--once")
        assert (answer.code, answer.out) == (1, "ran: 1 failed\n"), answer.err

    async def test_nothing_is_due(self, cli: Cli) -> None:
        answer = await cli.process("run", "--once")
        assert (answer.code, answer.out) == (0, "ran: nothing\n")


@pytest.fixture
async def empty(cluster: Embedded | Given, maintenance: asyncpg.Connection) -> AsyncIterator[str]:
    """The address of a database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name}")
    yield cluster.dsn(name)
    await maintenance.execute(f"drop database {name} with (force)")


def psql(dsn: str, script: str, tmp_path: Path) -> None:
    file = tmp_path / "script.sql"
    file.write_text(script, encoding="utf-8")
    command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file), dsn]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


async def run(dsn: str, script: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


class TestPrinted:
    async def test_migrate_prints_a_script_that_does_what_it_would_do(self, cli: Cli, empty: str) -> None:
        cli.dsn = empty
        printed = await cli("migrate", "--print")
        assert printed.code == 0
        await run(empty, printed.out)
        again = await cli("migrate", "--print")
        assert "create table" not in again.out
        assert "worker.declare" in again.out
        assert (await cli("migrate")).out == "the schema is up to date\n"

    async def test_psql_takes_it(self, cli: Cli, empty: str, tmp_path: Path) -> None:
        cli.dsn = empty
        printed = (await cli("migrate", "--print")).out
        try:
            psql(empty, printed, tmp_path)
        except FileNotFoundError:
            pytest.skip("no psql here")
        assert (await cli("enqueue", "fine")).code == 0

    async def test_printing_changes_nothing(self, cli: Cli, empty: str) -> None:
        cli.dsn = empty
        await cli("migrate", "--print")
        connection = await asyncpg.connect(empty)
        try:
            assert await connection.fetchval("select to_regnamespace('worker')") is None
        finally:
            await connection.close()

    async def test_uninstall_only_prints(self, cli: Cli, connection: asyncpg.Connection) -> None:
        bare, printed = await cli("uninstall"), await cli("uninstall", "--print")
        assert (bare.code, printed.code) == (2, 0)
        assert "executes nothing" in bare.err
        assert await connection.fetchval("select worker.enqueue('still_there')") == 1

    async def test_what_it_prints_leaves_nothing(self, cli: Cli, dsn: str, connection: asyncpg.Connection) -> None:
        await connection.execute("create function public.mine() returns integer language sql as 'select 1'")
        await run(dsn, (await cli("uninstall", "--print")).out)
        left = await connection.fetchrow(
            "select to_regnamespace('worker')::text, to_regprocedure('public.mine()')::text,"
            " (select count(*) from pg_roles where rolname like 'worker\\_%')"
        )
        assert left == (None, "mine()", 6)

    async def test_the_commented_lines_name_every_role(self, cli: Cli, connection: asyncpg.Connection) -> None:
        roles = {
            role for (role,) in await connection.fetch("select rolname from pg_roles where rolname like 'worker\\_%'")
        }
        lines = (await cli("uninstall", "--print")).out.splitlines()
        dropped = next(line for line in lines if line.startswith("-- drop role"))
        assert {role.strip(" ;") for role in dropped.removeprefix("-- drop role").split(",")} == roles
