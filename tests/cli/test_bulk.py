"""`retry --failed` and `cancel` by a filter: what is shown, asked, done and told, and with which exit code."""

import asyncio
import contextlib
import os
import pty
import select
import subprocess
import sys

import asyncpg
import pytest

from tests.cli.support import SECONDS, Cli
from tests.cli.test_operate import fail
from tests.heart import enqueue
from tests.support import ROOT


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.cli.bulk.PAGE", 2)


async def failed(connection: asyncpg.Connection, job_type: str, number: int, **columns: object) -> None:
    await fail(connection, *[await enqueue(connection, job_type, **columns) for _ in range(number)])


async def statuses(connection: asyncpg.Connection) -> dict[str, int]:
    return dict(await connection.fetch("select status, count(*) from worker.jobs group by status"))


async def test_shows_asks_and_does(cli: Cli, connection: asyncpg.Connection) -> None:
    await failed(connection, "fine", 5)
    await failed(connection, "fails", 1)
    await connection.execute('update worker.job_queue set errors = \'[{"message": "no \\u001b[31mway"}]\' where id = 1')
    asked = await cli("retry", "--failed", "--type", "fine")
    assert (asked.code, asked.out) == (2, "")
    assert "on test: retry 5 failed fine jobs; finished steps are kept" in asked.err
    assert "5  fine: exhausted" in asked.err
    assert "such as job 1 (fine) no" in asked.err
    assert "\x1b" not in asked.err
    assert await statuses(connection) == {"failed": 6}
    done = await cli("retry", "--failed", "--type", "fine", "--yes")
    assert (done.code, done.out) == (0, "5 jobs are pending and due\n")
    assert await statuses(connection) == {"failed": 1, "pending": 5}
    again = await cli("retry", "--failed", "--type", "fine")
    assert (again.code, again.out) == (0, "no job to retry\n")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--failed",), {1, 2, 3, 4}),
        (("--cancelled",), {5}),
        (("--failed", "--reason", "timeout"), {2}),
        (("--failed", "--error", "BROKEN pipe"), {3}),
        (("--failed", "--tenant", "a"), {4}),
        (("--failed", "--since", "1h"), {1, 2, 3}),
        (("--failed", "--until", "1h"), {4}),
        (("--failed", "--since", "2000-01-01T00:00Z", "--until", "1h", "--type", "fine"), {4}),
    ],
)
async def test_filters_of_retry(
    cli: Cli, connection: asyncpg.Connection, options: tuple[str, ...], found: set[int]
) -> None:
    await failed(connection, "fine", 3)
    await failed(connection, "fine", 1, tenant_id="a")
    await enqueue(connection, "fine")
    await connection.execute("select worker.cancel(5)")
    for change in (
        "finish_reason = 'timeout' where id = 2",
        'errors = \'[{"message": "a broken pipe"}]\' where id = 3',
        "finished_at = now() - interval '2 hours' where id = 4",
    ):
        await connection.execute(f"update worker.job_queue set {change}")
    shown = (await cli("retry", *options, "--dry-run", "--json")).value
    assert {job["id"] for job in shown["sample"]} == found
    done = (await cli("retry", *options, "--yes", "--json")).value
    assert (done["done"], done["refused"], done["count"]) == (len(found), 0, len(found))
    pending = await connection.fetch("select id from worker.jobs where status = 'pending'")
    assert {id for (id,) in pending} == found


async def test_a_dry_run_does_nothing(cli: Cli, connection: asyncpg.Connection) -> None:
    await failed(connection, "fine", 3)
    answer = await cli("retry", "--failed", "--rate", "1/m", "--dry-run")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("retry 3 failed fine jobs, due over 2.0 min; finished steps are kept\n")
    assert await statuses(connection) == {"failed": 3}
    assert await connection.fetchval("select count(*) from worker.job_event") == 0


async def test_a_rate_spreads_them(cli: Cli, connection: asyncpg.Connection) -> None:
    await failed(connection, "fine", 4)
    answer = await cli("retry", "--failed", "--rate", "30/m", "--yes")
    assert (answer.code, answer.out) == (0, "4 jobs are pending\n")
    assert "due over 6.0 s" in answer.err
    spread = await connection.fetchval("select max(scheduled_at) - min(scheduled_at) from worker.jobs")
    assert spread.total_seconds() >= 6


@pytest.mark.parametrize("rate", ["10", "0/s", "1/d", "-1/s", "x/s"])
async def test_no_rate(cli: Cli, rate: str) -> None:
    answer = await cli("retry", "--failed", "--rate", rate)
    assert (answer.code, "must be a rate such as 10/s" in answer.err) == (2, True)


async def test_no_instant(cli: Cli, connection: asyncpg.Connection) -> None:
    await failed(connection, "fine", 1)
    answer = await cli("retry", "--failed", "--since", "soon", "--yes")
    assert (answer.code, "since is no time" in answer.err) == (2, True)


async def test_refused_ones_are_told(cli: Cli, connection: asyncpg.Connection) -> None:
    await failed(connection, "fine", 2)
    await failed(connection, "fine", 1, unique_key="u")
    await connection.execute("update worker.job_queue set unique_while = 'active' where id = 3")
    holder = await enqueue(connection, "fine", unique_key="u")
    asked = ("retry", "--failed", "--type", "fine", "--yes")
    answer = await cli(*asked)
    assert (answer.code, answer.out) == (1, "2 jobs are pending and due\n")
    assert f"job {holder} holds its unique key" in answer.err
    assert "1 job refused" in answer.err
    ((refusal,),) = [(await cli(*asked, "--json")).value["refusals"]]
    assert (refusal["id"], refusal["code"], refusal["holder"]) == (3, "WK003", holder)


async def test_fresh_forgets_steps(cli: Cli, connection: asyncpg.Connection) -> None:
    await failed(connection, "fine", 1)
    await connection.execute(
        "insert into worker.job_step (job_id, name, status, claim) values (1, 'a', 'completed', 1)"
    )
    answer = await cli("retry", "--failed", "--fresh", "--yes")
    assert "from their first step" in answer.err
    assert await connection.fetchval("select count(*) from worker.job_step") == 0


async def test_cancel_many(cli: Cli, connection: asyncpg.Connection) -> None:
    for job_type in ("fine", "fine", "fine", "fails"):
        await enqueue(connection, job_type)
    process = await connection.fetchval("select worker.register('host', 1, '0', '{fine}', 1, '30s', false)")
    await connection.execute(
        "update worker.job_queue set status = 'running', queued = false, claim = 1, batch = 1, started_at = now(),"
        " claimed_by = $1 where id = 1",
        process,
    )
    shown = await cli("cancel", "--type", "fine", "--dry-run")
    assert shown.out.startswith("cancel 3 fine jobs; running ones are asked to end\n")
    done = await cli("cancel", "--type", "fine", "--reason", "flood", "--yes")
    assert (done.code, done.out) == (0, "3 jobs cancelled, or asked to end\n")
    assert await statuses(connection) == {"running": 1, "cancelled": 2, "pending": 1}
    assert (await cli("cancel", "--status", "pending", "--json", "--yes")).value["done"] == 1
    assert (await cli("cancel", "--since", "1h")).out == "no job to cancel\n"


@pytest.mark.parametrize("arguments", [(), ("1", "--type", "fine"), ("1", "--dry-run"), ("--reason", "x")])
async def test_cancel_one_or_many(cli: Cli, arguments: tuple[str, ...]) -> None:
    answer = await cli("cancel", *arguments)
    assert (answer.code, "either ID, or a filter" in answer.err) == (2, True)


async def test_cancel_one_as_json(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    assert (await cli("cancel", "1", "--json")).value == {"id": 1, "status": "cancelled"}


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, {"pending": 5}), ("n\n", 1, {"failed": 5})])
async def test_on_a_terminal_it_waits_for_an_answer_and_shows_a_bar(
    cli: Cli, connection: asyncpg.Connection, answer: str, code: int, left: dict[str, int]
) -> None:
    await failed(connection, "fine", 5)
    ended, shown = await asyncio.to_thread(on_a_terminal, cli, answer, "retry", "--failed")
    assert (ended, "on test: retry 5 failed fine jobs" in shown, "Go on? [y/N]" in shown) == (code, True, True)
    assert ("5/5" in shown) == (code == 0)
    assert await statuses(connection) == left


def on_a_terminal(cli: Cli, answer: str, *arguments: str) -> tuple[int, str]:
    """The verb's exit code, and what it showed on the terminal that answers."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments, "--config", str(cli.config)],
        cwd=ROOT, env={**os.environ, "DATABASE_URL": cli.dsn, "TERM": "xterm"},
        stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody holds the other end any more
        while select.select([ours], [], [], SECONDS)[0] and (piece := os.read(ours, 10_000)):
            shown += piece
    os.close(ours)
    process.communicate(timeout=SECONDS)
    return process.returncode, shown.decode()
