"""The whole daemon in one loop: started, worked, stopped, and back after it was declared dead."""

import asyncio

import pytest

from tests.heart import EVIDENCE, configured, daemon, enqueue, row, until
from tests.proxy import proxied
from tests.stress.fault_proxy import faulty
from worker import parts
from worker.errors import DatabaseUnreachable, DeclarationError, SchemaError
from worker.service import run
from worker.stop import Stop

JOBS = """
[job.echo]
python = "tests.sample_jobs:echo"
[job.wait]
python = "tests.sample_jobs:wait"
[job.effect]
python = "tests.sample_jobs:effect"
"""
QUICK = 'poll = "500ms"\nbeat = "50ms"\nfence = "1s"\nmissing = "1500ms"\nlease = "10s"\ngrace = "100ms"'
DONE = "select status = 'completed' from worker.job_queue where id = $1"
RUNNING = "select status = 'running' from worker.job_queue where id = $1"


@pytest.fixture
def config(dsn, tmp_path):
    return configured(tmp_path, dsn, JOBS, worker=QUICK)


async def test_it_runs_a_job_and_stops(config, connection):
    async with daemon(config) as (stop, task, me):
        job_id = await enqueue(connection, "echo", {"a": 1})
        await until(connection, DONE, job_id)
        stop.ask()
        await asyncio.wait_for(task, 20)
    assert (await row(connection, job_id))["result"] == '{"a": 1}'
    found = await connection.fetchrow("select * from worker.process where id = $1", me)
    assert found["stopped_at"] is not None
    assert found["dead_at"] is None
    await until(connection, "select count(*) = 0 from pg_stat_activity where application_name ~ '^worker '")


async def test_it_declares_its_types(config, connection):
    async with daemon(config):
        names = await connection.fetchval("select array_agg(name order by name) from worker.job_type")
    assert names == ["echo", "effect", "wait"]


async def test_what_runs_at_the_stop_is_handed_back(config, connection):
    async with daemon(config) as (stop, task, _):
        job_id = await enqueue(connection, "wait")
        await until(connection, RUNNING, job_id)
        stop.ask()
        await asyncio.wait_for(task, 20)
    found = await row(connection, job_id)
    assert (found["status"], found["attempt"]) == ("pending", 0)


async def test_cancel_reaches_a_running_coroutine(config, connection):
    async with daemon(config):
        job_id = await enqueue(connection, "wait")
        await until(connection, RUNNING, job_id)
        await connection.execute("select worker.cancel($1)", job_id)
        await until(connection, "select status = 'cancelled' from worker.job_queue where id = $1", job_id)


async def test_declared_dead_it_comes_back_under_a_new_id(config, connection):
    async with daemon(config) as (_, task, me):
        held = await enqueue(connection, "wait")
        await until(connection, RUNNING, held)
        await connection.execute("update worker.process set dead_at = now() where id = $1", me)
        alive = "select id from worker.process where dead_at is null and stopped_at is null"
        assert await until(connection, alive) != me
        await until(connection, DONE, await enqueue(connection, "echo"))
        await until(connection, f"select claimed_by = ({alive}) from worker.job_queue where id = $1", held)
        assert not task.done()


async def test_declared_dead_is_not_the_jobs_fault(config, connection):
    """What it ran is handed back uncounted where no rescuer was faster: the job has one attempt only, and keeps it."""
    async with daemon(config) as (_, task, me):
        held = await enqueue(connection, "wait", max_attempts=1)
        await until(connection, RUNNING, held)
        await connection.execute("update worker.process set dead_at = now() where id = $1", me)
        again = "select status = 'running' and claimed_by <> $2 from worker.job_queue where id = $1"
        await until(connection, again, held, me)
        found = await row(connection, held)
        assert (found["attempt"], found["rescues"], found["errors"]) == (1, 0, None)
        assert not task.done()


async def test_declared_dead_while_it_claims_without_a_pause(config, connection):
    """The database may refuse a claim before the next beat is told: the same, and no crash."""
    async with daemon(config) as (_, task, me):
        await connection.execute("select worker.enqueue('echo') from generate_series(1, 2000)")
        await until(connection, "select count(*) > 100 from worker.job_queue where status = 'completed'")
        await connection.execute("update worker.process set dead_at = now() where id = $1", me)
        await until(connection, "select bool_and(status = 'completed') from worker.job_queue")
        assert not task.done()


async def test_a_network_cut_is_lived_through(dsn, tmp_path, connection):
    async with proxied(dsn) as proxy:
        await connection.execute(EVIDENCE)
        async with daemon(configured(tmp_path, proxy.dsn, JOBS, worker=QUICK)) as (_, task, me):
            waiting = await enqueue(connection, "wait")
            await until(connection, RUNNING, waiting)
            claim = (await row(connection, waiting))["claim"]
            proxy.refusing = True
            proxy.drop()
            done = await enqueue(connection, "effect")
            await asyncio.sleep(1.2)  # beyond the fence: what runs is interrupted, and handed back when the cut is over
            proxy.refusing = False
            await until(connection, DONE, done)
            await until(connection, "select status = 'running' and claim > $2 from worker.job_queue where id = $1",
                        waiting, claim)  # fmt: skip
            assert not task.done()
            assert await connection.fetchval("select dead_at is null from worker.process where id = $1", me)
        assert (await row(connection, waiting))["attempt"] == 0


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_stop_does_not_wait_for_answers_that_never_come(dsn, tmp_path, connection, busy):
    """Everything goes nowhere and nothing is closed: it is over long before the deadlines of its calls."""
    async with faulty(dsn) as proxy, daemon(configured(tmp_path, proxy.dsn, JOBS, worker=QUICK)):
        if busy:
            await until(connection, RUNNING, await enqueue(connection, "wait"))
        proxy.hold()


async def test_a_storm_of_ended_backends_costs_no_job(config, connection):
    await connection.execute(EVIDENCE)
    async with daemon(config) as (_, task, _):
        for _ in range(15):
            await connection.execute("select worker.enqueue('effect') from generate_series(1, 10)")
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ '^worker '"
                " and datname = current_database()"
            )
        await until(connection, "select bool_and(status = 'completed') from worker.job_queue", seconds=40)
        assert not task.done()
    # A coroutine's effect is at least once: the connection may be lost between its effect and its verdict.
    assert await connection.fetchval("select count(distinct job_id) from fx") == 150


async def test_cancelled_backends_cost_no_job_either(config, connection):
    async with daemon(config) as (_, task, _):
        for _ in range(30):
            await connection.execute("select worker.enqueue('echo') from generate_series(1, 10)")
            await connection.execute(
                "select pg_cancel_backend(pid) from pg_stat_activity where application_name ~ '^worker '"
                " and datname = current_database()"
            )
        await until(connection, "select bool_and(status = 'completed') from worker.job_queue", seconds=40)
        assert not task.done()


async def test_the_master_switch_claims_nothing(dsn, tmp_path, connection):
    config = configured(tmp_path, dsn, JOBS, worker=f"{QUICK}\nenabled = false")
    job_id = await enqueue(connection, "echo")
    async with daemon(config) as (_, _, me):
        await until(connection, "select beat_at > started_at from worker.process where id = $1", me)
        assert (await row(connection, job_id))["started_at"] is None
        said = await connection.fetchrow("select * from worker.explain_job($1)", job_id)
        assert (said["code"], "worker.enabled = false" in said["sentence"]) == ("no_worker_for_type", True)


async def test_a_side_duty_that_dies_ends_the_process_loudly(config, monkeypatch):
    async def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(parts, "sweep", broken)
    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(run(config, Stop()), 20)
    assert ended.group_contains(ZeroDivisionError)


async def test_a_stop_asked_while_the_database_is_away_is_heard(tmp_path):
    config = configured(tmp_path, f"postgresql://postgres@/x?host={tmp_path}", JOBS)
    stop = Stop()
    task = asyncio.create_task(run(config, stop))
    await asyncio.sleep(0)
    stop.ask()
    await asyncio.wait_for(task, 20)


async def test_a_database_without_the_schema_is_refused(cluster, maintenance, tmp_path):
    await maintenance.execute("create database without_schema")
    try:
        with pytest.raises(SchemaError, match="worker migrate"):
            await asyncio.wait_for(run(configured(tmp_path, cluster.dsn("without_schema"), JOBS), Stop()), 20)
    finally:
        await maintenance.execute("drop database without_schema with (force)")


async def test_a_database_that_is_not_there_is_refused(cluster, tmp_path):
    with pytest.raises(DatabaseUnreachable):
        await asyncio.wait_for(run(configured(tmp_path, cluster.dsn("is_not_there"), JOBS), Stop()), 20)


async def test_every_missing_function_is_named_at_the_start(dsn, tmp_path, connection):
    jobs = '[job.a]\n[job.a.steps]\none = { sql = "gone" }\n[job.b]\npython = "tests.sample_jobs:nobody"\n'
    with pytest.raises(DeclarationError) as error:
        await asyncio.wait_for(run(configured(tmp_path, dsn, jobs), Stop()), 20)
    assert [fault.split(":")[0] for fault in error.value.faults] == ["job.a.steps.one", "job.b"]
    assert await connection.fetchval("select count(*) from pg_stat_activity where application_name ~ '^worker '"
                                     " and datname = current_database()") == 0  # fmt: skip


async def test_two_requests_are_two_stages():
    stop = Stop()
    stop.ask()
    assert (stop.asked.is_set(), stop.hurry.is_set()) == (True, False)
    stop.ask()
    assert stop.hurry.is_set()
