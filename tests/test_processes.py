"""Real daemons, real signals, a real server that goes away."""

import asyncio
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.heart import EVIDENCE, GATE, GRAPH, QUICK, effects, enqueue, row, until, write_config
from tests.processes import Fleet, fleet
from tests.support import server_folder
from worker.embedded import Embedded, start
from worker.migrations import migrate

DEFAULTS = 'grace = "25s"'
BRIEF = """
[job.brief]
arguments = { job_id = "id" }
retry = { first = "1ms", max_attempts = 3 }
parallel = 2
[job.brief.steps]
first = { sql = "first_step" }
brief = { sql = "brief_step" }
second = { sql = "second_step", needs = ["first", "brief"] }
"""
LONG = """
[job.long]
arguments = { job_id = "id" }
[job.long.steps]
long = { sql = "long_step" }
"""
PYTHON = """
[job.echo]
python = "tests.sample_jobs:echo"
[job.effect]
python = "tests.sample_jobs:effect"
[job.stubborn]
python = "tests.sample_jobs:stubborn"
[job.threaded]
python = "tests.sample_jobs:threaded"
"""
STEP_RUNS = "select count(*) from pg_stat_activity where application_name = 'worker step' and state = 'active'"
AT_THE_GATE = """
    select exists (select from worker.job_step where job_id = $1 and name = 'first' and status = 'completed')
       and exists (select from pg_locks where locktype = 'advisory' and objid = 77 and not granted)
"""


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


@pytest.fixture
async def gate(connection: asyncpg.Connection, second: asyncpg.Connection) -> asyncpg.Connection:
    """Holds the gate shut until `pg_advisory_unlock_all`."""
    await connection.execute(EVIDENCE)
    await second.execute("select pg_advisory_lock($1)", GATE)
    return second


async def opened(gate: asyncpg.Connection) -> None:
    await gate.execute("select pg_advisory_unlock_all()")


async def finished(connection: asyncpg.Connection, job_id: int) -> None:
    await until(connection, "select status = 'completed' from worker.job_queue where id = $1", job_id, seconds=40)


def once(job_id: int) -> dict[tuple[int, str], int]:
    return {(job_id, step): 1 for step in ("first", "gated", "second")}


async def test_sigterm_in_mid_graph_hands_back_uncounted_and_keeps_what_is_done(tmp_path, connection, gate, daemons):
    config = write_config(tmp_path, GRAPH, worker=QUICK.replace('grace = "10s"', 'grace = "200ms"'))
    daemon = daemons.start(config)
    job_id = await enqueue(connection, "graph")
    await until(connection, AT_THE_GATE, job_id)
    daemon.send(signal.SIGTERM)
    assert daemon.ends() == 0
    handed_back = await row(connection, job_id)
    assert (handed_back["status"], handed_back["attempt"], handed_back["errors"]) == ("pending", 0, None)
    assert await effects(connection) == {(job_id, "first"): 1}
    assert await connection.fetchval("select count(*) from worker.process where stopped_at is null") == 0
    assert await connection.fetchval("select count(*) from pg_stat_activity where application_name ~ '^worker '") == 0
    await opened(gate)
    daemons.start(config)
    await finished(connection, job_id)
    assert await effects(connection) == once(job_id)
    assert (await row(connection, job_id))["attempt"] == 1


async def test_what_a_stop_hands_back_is_rung_for(tmp_path, connection, gate, daemons):
    """A neighbour sleeps and would not look by itself for ten minutes."""
    rung = QUICK.replace('grace = "10s"', 'grace = "200ms"').replace('poll = "1s"', 'poll = "10m"')
    config = write_config(tmp_path, GRAPH, worker=rung)
    stopping = daemons.start(config)
    job_id = await enqueue(connection, "graph")
    await until(connection, AT_THE_GATE, job_id)
    daemons.start(config)
    holder = (await row(connection, job_id))["claimed_by"]
    await until(connection, "select exists (select from worker.asleep where process_id <> $1)", holder)
    stopping.send(signal.SIGTERM)
    assert stopping.ends() == 0
    await opened(gate)
    await finished(connection, job_id)
    assert (await row(connection, job_id))["claimed_by"] != holder
    assert await effects(connection) == once(job_id)


async def test_sigterm_lets_what_runs_finish_within_grace(tmp_path, connection, gate, daemons):
    daemon = daemons.start(write_config(tmp_path, GRAPH))
    job_id = await enqueue(connection, "graph")
    await until(connection, AT_THE_GATE, job_id)
    daemon.send(signal.SIGTERM)
    daemon.says("service.draining")
    later = await enqueue(connection, "graph")
    await opened(gate)
    assert daemon.ends() == 0
    assert (await row(connection, job_id))["status"] == "completed"
    assert (await row(connection, later))["started_at"] is None


async def test_a_second_signal_hurries(tmp_path, connection, gate, daemons):
    daemon = daemons.start(write_config(tmp_path, GRAPH, worker='grace = "10m"'))
    job_id = await enqueue(connection, "graph")
    await until(connection, AT_THE_GATE, job_id)
    daemon.send(signal.SIGTERM)
    daemon.says("service.draining")
    daemon.send(signal.SIGINT)
    assert daemon.ends() == 0
    assert (await row(connection, job_id))["status"] == "pending"


async def test_an_idle_daemon_stops_at_once_and_leaves_nothing(tmp_path, connection, daemons):
    daemon = daemons.start(write_config(tmp_path, PYTHON))
    daemon.send(signal.SIGTERM)
    assert daemon.ends() == 0
    assert await connection.fetchval("select count(*) from worker.backend") == 0
    assert await connection.fetchval("select count(*) from worker.asleep") == 0


@pytest.mark.parametrize("job_type", ["stubborn", "threaded"])
async def test_a_handler_that_ignores_its_end_does_not_keep_the_process(tmp_path, connection, daemons, job_type):
    await connection.execute(EVIDENCE)
    daemon = daemons.start(write_config(tmp_path, PYTHON, worker='grace = "100ms"'))
    job_id = await enqueue(connection, job_type)
    await until(connection, "select count(*) from fx")
    daemon.send(signal.SIGTERM)
    assert daemon.ends() == 0
    assert (await row(connection, job_id))["status"] == "pending"


@pytest.mark.parametrize("job_type", ["stubborn", "threaded"])
async def test_nor_does_it_keep_a_process_that_ends_by_a_fault(tmp_path, connection, daemons, job_type):
    """It would claim nothing for ever, and no supervisor would start another."""
    await connection.execute(EVIDENCE)
    daemon = daemons.start(write_config(tmp_path, PYTHON))
    await enqueue(connection, job_type)
    await until(connection, "select count(*) from fx")
    await connection.execute("drop function worker.sweep()")
    await connection.execute("insert into worker.kept (job_id, enqueued_by) values (0, current_user)")  # to be swept
    assert daemon.ends() > 0


async def test_after_sigkill_in_mid_graph_another_daemon_finishes_it(
    tmp_path, connection, gate, daemons, record_property
):
    config = write_config(tmp_path, GRAPH, worker=DEFAULTS)
    both = [daemons.start(config), daemons.start(config)]
    job_id = await enqueue(connection, "graph")
    await until(connection, AT_THE_GATE, job_id)
    ran, claim = await connection.fetchrow(
        "select p.pid, j.claim from worker.job_queue j join worker.process p on p.id = j.claimed_by where j.id = $1",
        job_id,
    )
    victim = next(daemon for daemon in both if daemon.pid == ran)
    began = time.monotonic()
    victim.kill()
    again = "select exists (select from worker.job_step where job_id = $1 and status = 'running' and claim > $2)"
    await until(connection, again, job_id, claim, seconds=30)
    seconds = time.monotonic() - began
    print(f"crash to retry: {seconds:.2f} s at default settings")
    record_property("crash_to_retry_s", round(seconds, 2))
    await opened(gate)
    await finished(connection, job_id)
    assert await effects(connection) == once(job_id)
    found = await row(connection, job_id)
    # A step was done since the start, so the rescue does not count against the job.
    assert (found["attempt"], found["rescues"]) == (1, 0)
    assert await connection.fetchval("select count(*) from worker.job_event where event = 'rescue'") == 1


async def test_two_daemons_share_one_queue(tmp_path, connection, gate, daemons):
    config = write_config(tmp_path, GRAPH + PYTHON, worker=f"{QUICK}\nconcurrency = 1\nprefetch = 0")
    daemons.start(config)
    daemons.start(config)
    held = [await enqueue(connection, "graph"), await enqueue(connection, "graph")]
    await until(connection, "select count(distinct claimed_by) = 2 from worker.job_queue where status = 'running'")
    jobs = [await enqueue(connection, "effect") for _ in range(40)]
    await opened(gate)
    await until(connection, "select bool_and(status = 'completed') from worker.job_queue")
    found = await effects(connection)
    assert found == once(held[0]) | once(held[1]) | {(job_id, "python"): 1 for job_id in jobs}


async def test_types_that_nobody_declares_are_never_claimed(tmp_path, connection, daemons):
    daemons.start(write_config(tmp_path, PYTHON))
    unknown = await enqueue(connection, "somebody_elses")
    known = await enqueue(connection, "echo", {"a": 1})
    await finished(connection, known)
    found = await row(connection, unknown)
    assert (found["status"], found["attempt"], found["claim"]) == ("pending", 0, None)


async def test_cancel_of_a_running_job_stops_its_sql(tmp_path, connection, daemons):
    await connection.execute(EVIDENCE)
    daemons.start(write_config(tmp_path, LONG))
    job_id = await enqueue(connection, "long")
    await until(connection, STEP_RUNS)
    assert await connection.fetchval("select worker.cancel($1, 'enough')", job_id) == "running"
    await until(connection, "select status = 'cancelled' from worker.job_queue where id = $1", job_id)
    await until(connection, f"select ({STEP_RUNS}) = 0")
    assert await effects(connection) == {}
    assert (await row(connection, job_id))["finish_reason"] in ("enough", "cancelled")


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ('[job.graph]\n[job.graph.steps]\na = { sql = "is_not_there" }\n', ["job.graph.steps.a", "is_not_there"]),
        ('[job.echo]\npython = "tests.sample_jobs:nobody"\n', ["job.echo", "nobody"]),
        ("[job.echo\n", ["worker.toml:"]),
        ('[job.echo]\npyton = "tests.sample_jobs:echo"\n', ["worker.toml:", "pyton"]),
    ],
    ids=["function", "coroutine", "toml", "key"],
)
async def test_a_faulty_configuration_is_refused_and_named(tmp_path, daemons, jobs, told):
    daemon = daemons.start(write_config(tmp_path, jobs), wait=False)
    assert daemon.ends() not in (0, -signal.SIGKILL)
    assert [text for text in told if text not in daemon.said()] == []


# A server of our own, to be stopped and crashed.


@pytest.fixture(scope="module")
def server() -> Iterator[Embedded]:
    with server_folder() as folder:
        yield start(folder, die_with_parent=True)


@pytest.fixture
async def own(server: Embedded) -> str:
    name = f"own_{uuid.uuid4().hex[:12]}"
    maintenance = await asyncpg.connect(server.dsn())
    await maintenance.execute(f"create database {name}")
    await maintenance.close()
    await migrate(server.dsn(name))
    return server.dsn(name)


async def reconnected(dsn: str) -> asyncpg.Connection:
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncpg.connect(dsn)
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_postgres_costs_no_job_and_no_process(tmp_path, server, own, mode):
    connection = await asyncpg.connect(own)
    await connection.execute(EVIDENCE)
    with fleet(tmp_path, own) as daemons:
        both = [daemons.start(write_config(tmp_path, BRIEF + PYTHON)) for _ in range(2)]
        await connection.execute("select worker.enqueue('brief'), worker.enqueue('echo') from generate_series(1, 150)")
        for share in (20, 60):  # restarted twice, each time with jobs under way
            await until(connection, "select count(*) >= $1 from worker.job_queue where status = 'completed'", share)
            await connection.close()
            server.restart(mode)
            connection = await reconnected(own)
        await until(connection, "select bool_and(status = 'completed') from worker.job_queue", seconds=60)
        assert [daemon.process.poll() for daemon in both] == [None, None]
        assert set((await effects(connection)).values()) == {1}
        assert await connection.fetchval("select count(*) from fx") == 150 * 3
        assert await connection.fetchval("select count(*) from worker.process where dead_at is not null") == 0
        await connection.close()


async def test_a_database_that_is_away_at_the_start_is_waited_for(tmp_path, server, own):
    server.stop()
    with fleet(tmp_path, own) as daemons:
        waiting = daemons.start(write_config(tmp_path, PYTHON), wait=False)
        stopped = daemons.start(write_config(tmp_path, PYTHON), wait=False)
        waiting.says("database.waiting")
        stopped.says("database.waiting")
        stopped.send(signal.SIGTERM)
        assert stopped.ends() == 0
        server.restart()
        waiting.says("service.started")


async def test_a_wrong_password_is_an_error_at_once(tmp_path, server, own):
    connection = await asyncpg.connect(own)
    rules = server.data / "cluster" / "pg_hba.conf"
    rules.write_text("local all stranger scram-sha-256\n" + rules.read_text())
    await connection.execute("create role stranger login password 'right'; select pg_reload_conf()")
    await until(connection, "select count(*) from pg_hba_file_rules where 'stranger' = any (user_name)")
    await connection.close()
    wrong = own.replace("postgres@", "stranger:wrong@")
    with fleet(tmp_path, own) as daemons:
        daemon = daemons.start(write_config(tmp_path, PYTHON), dsn=wrong, wait=False)
        assert daemon.ends() not in (0, -signal.SIGKILL)
        assert "refuses this user or this password" in daemon.said()
        assert "wrong" not in daemon.said()
