"""What a daemon sends of what it counted: only what changed, once, and never twice."""

import asyncio
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from tests import processes
from tests.conftest import SETTINGS
from tests.heart import enqueue, heart, until, write_config
from tests.processes import Fleet, fleet
from tests.support import server_folder
from worker import tally as module
from worker.embedded import start
from worker.metrics import Metrics
from worker.migrations import migrate
from worker.series import COUNTED
from worker.tally import Tally

FINISHED = "worker_jobs_finished_total"
JOBS = '[job.echo]\npython = "tests.sample_jobs:echo"'


@pytest.fixture
async def parts(dsn):
    async with heart(dsn) as opened:
        yield opened


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"work": ["one"]}, schedules=["nightly"])


async def found(connection: asyncpg.Connection) -> dict[tuple[str, ...], float]:
    """Name and values of its labels → value."""
    rows = await connection.fetch("select series, labels, value from worker.tally")
    return {(series, *json.loads(labels).values()): value for series, labels, value in rows}


def attempt(metrics: Metrics, outcome: str = "completed", seconds: float = 0.2, waited: float = 0.0) -> None:
    metrics.finished.labels("work", outcome).inc()
    metrics.duration.labels("work").observe(seconds)
    metrics.wait.labels("work").observe(waited)


async def test_what_changed_is_sent_once(parts, connection, metrics):
    tally = Tally(metrics)
    for _ in range(3):
        attempt(metrics)
    attempt(metrics, "retried", 7.0)
    metrics.rescues.inc()
    metrics.step_duration.labels("work", "one").observe(0.2)
    for _ in range(3):
        await tally.push(parts.queue)
    rows = await found(connection)
    assert rows[FINISHED, "completed", "work"] == 3
    assert rows["worker_job_duration_seconds_bucket", "0.25", "work"] == 3
    assert rows["worker_job_duration_seconds_bucket", "10.0", "work"] == 1
    assert rows["worker_job_duration_seconds_sum", "work"] == pytest.approx(7.6)
    assert rows["worker_rescues_total",] == 1
    assert rows["worker_step_duration_seconds_bucket", "0.25", "one", "work"] == 1
    assert 0 not in rows.values()  # what did not change is not sent
    attempt(metrics)
    await tally.push(parts.queue)
    assert (await found(connection))[FINISHED, "completed", "work"] == 4


async def test_attempts_go_to_the_trend(parts, connection, metrics):
    outcomes = ("completed", "failed", "retried", "snoozed", "released", "skipped", "cancelled")
    for outcome in outcomes:
        attempt(metrics, outcome, 0.2, 2.0)
    metrics.finished.labels("other", "completed").inc()
    await Tally(metrics).push(parts.queue)
    rows = await connection.fetch(
        "select job_type, completed, failed, again, other, waits[9], runs[8] from worker.trend order by 1"
    )
    assert [tuple(row) for row in rows] == [("other", 1, 0, 0, 0, 0, 0), ("work", 1, 1, 3, 2, 7, 7)]


async def test_two_processes_add_up(parts, connection):
    for each in (Metrics({"work": []}), Metrics({"work": []})):
        attempt(each)
        await Tally(each).push(parts.queue)
    assert (await found(connection))[FINISHED, "completed", "work"] == 2


async def test_an_idle_daemon_sends_nothing(parts, connection, metrics, monkeypatch):
    tally = Tally(metrics)
    metrics.claims.labels("empty").inc(1000)
    metrics.loop_lag.observe(0.001)
    await tally.push(parts.queue)
    assert await found(connection) == {}
    monkeypatch.setattr(module, "IDLE_SECONDS", -1.0)  # twenty minutes later
    await Tally(metrics).push(parts.queue)
    assert (await found(connection))["worker_claims_total", "empty"] == 1000
    metrics.claims.labels("empty").inc()
    monkeypatch.setattr(module, "IDLE_SECONDS", 1200.0)
    await tally.push(parts.queue, last=True)  # its end
    assert (await found(connection))["worker_claims_total", "empty"] == 2001


class Broken:
    """A queue whose push ends with an error, before or after it left."""

    def __init__(self, error: BaseException, left: bool) -> None:
        self.error, self.left, self.asked = error, left, 0

    async def add_counts(self, counts: Any, attempts: Any, sending: Any) -> None:
        self.asked += 1
        if self.left:
            sending()
        raise self.error


@pytest.mark.parametrize(
    ("error", "left", "told"),
    [
        (asyncpg.LockNotAvailableError("x"), True, 2),
        (asyncpg.AdminShutdownError("x"), True, 2),
        (OSError("x"), False, 2),
        (TimeoutError(), False, 2),
        (TimeoutError(), True, 1),
        (asyncpg.ConnectionDoesNotExistError("x"), True, 1),
        (asyncpg.InterfaceError("connection is closed"), True, 1),
    ],
    ids=repr,
)
async def test_what_may_have_been_written_is_not_sent_again(connection, parts, error, left, told):
    """A counter may lose, and must not jump."""
    metrics = Metrics({"work": []})
    tally = Tally(metrics)
    attempt(metrics)
    with pytest.raises(type(error)):
        await tally.push(Broken(error, left))
    attempt(metrics)
    await tally.push(parts.queue)
    assert (await found(connection))[FINISHED, "completed", "work"] == told


async def test_a_refusal_ends_nothing_and_is_not_repeated_soon(parts, connection, metrics):
    tally = Tally(metrics)
    attempt(metrics)
    broken = Broken(asyncpg.UndefinedFunctionError("x"), left=True)
    with structlog.testing.capture_logs() as said:
        await tally.push(broken)
        await tally.push(broken)
    assert ([line["event"] for line in said], broken.asked) == (["duty.failed"], 1)
    await tally.push(parts.queue, last=True)
    assert (await found(connection))[FINISHED, "completed", "work"] == 1


async def test_a_great_deal_goes_in_pieces(parts, connection, metrics, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    tally = Tally(metrics)
    attempt(metrics)
    metrics.rescues.inc()
    pieces = [len(await found(connection))]
    for _ in range(4):
        await tally.push(parts.queue)
        pieces.append(len(await found(connection)))
    assert pieces == [0, 2, 4, 5, 5]


async def test_every_name_is_taken(parts, connection, metrics):
    """Each counter and each histogram, at its worst, is what worker.add_counts lets in."""
    for name, about in COUNTED.items():
        collector = metrics.counted[name]
        labels = [{"job_type": "work", "step": "one", "schedule": "nightly"}.get(label, "x") for label in about.labels]
        child = collector.labels(*labels) if labels else collector
        child.observe(1e7) if about.bounds else child.inc()
    await Tally(metrics).push(parts.queue)
    assert {name.rpartition("_")[0] for name, *_ in await found(connection)} == set(COUNTED)


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


async def done(connection: asyncpg.Connection, jobs: int) -> None:
    for _ in range(jobs):
        await enqueue(connection, "echo")
    await until(connection, "select bool_and(status = 'completed') from worker.job_queue")


async def test_daemons_that_stop_have_told_everything(tmp_path, connection, daemons):
    config = write_config(tmp_path, JOBS)
    for jobs in (3, 4):
        daemon = daemons.start(config)
        await done(connection, jobs)
        daemon.send(signal.SIGTERM)
        assert daemon.ends() == 0
    rows = await found(connection)
    assert rows[FINISHED, "completed", "echo"] == 7
    assert sum(value for (name, *_), value in rows.items() if name == "worker_job_wait_seconds_bucket") == 7
    assert await connection.fetchval("select sum(completed) from worker.trends('1 hour', '5 minutes')") == 7


async def test_a_daemon_that_runs_once_tells_too(tmp_path, connection, daemons):
    await enqueue(connection, "echo")
    daemon = daemons.start(write_config(tmp_path, JOBS), options=("--once",), wait=False)
    assert daemon.ends() == 0
    assert (await found(connection))[FINISHED, "completed", "echo"] == 1


HURRIED = "import worker.parts; worker.parts.TALLY_EVERY = 0.1; from worker.cli.app import app; app()"
TOLD = f"select sum(value) from worker.tally where series = '{FINISHED}'"


async def test_a_killed_daemon_leaves_what_it_told(tmp_path, connection, daemons, monkeypatch):
    monkeypatch.setattr(
        processes, "command", lambda config: [sys.executable, "-c", HURRIED, "run", "--config", str(config)]
    )
    config = write_config(tmp_path, JOBS)
    for jobs in (2, 5):
        daemon = daemons.start(config)
        await done(connection, jobs - int(await connection.fetchval(TOLD) or 0))
        await until(connection, f"select ({TOLD}) = $1", jobs)
        daemon.kill()
    assert await connection.fetchval(TOLD) == 5


async def test_a_crash_of_the_server_begins_at_zero(tmp_path, metrics):
    """As after a restart of a daemon: what was told is gone, and is not told again."""
    with server_folder(brief=True) as folder:
        server = start(folder, settings=SETTINGS | {"synchronous_commit": "on"}, die_with_parent=True)
        try:
            await migrate(server.dsn())
            tally = Tally(metrics)
            for told in (3, 1):
                for _ in range(told):
                    attempt(metrics)
                async with heart(server.dsn()) as parts:
                    await tally.push(parts.queue)
                connection = await asyncpg.connect(server.dsn())
                assert (await found(connection))[FINISHED, "completed", "work"] == told
                await connection.close()
                await asyncio.to_thread(server.restart, "immediate")
        finally:
            server.stop("immediate")
