"""D.2: the server's own timeouts, inside a step and between two."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import DEFAULT_TERMS, errors_said, sessions, settle_all
from tests.stress.workload import FREE, create_steps, produce_free

ONCE = "retry = { max_attempts = 1 }"
# Each graph has a step that a timeout hits and one that nothing hits.
JOBS = f"""
[job.slow]
arguments = {{ job_id = "id" }}
{ONCE}
[job.slow.steps]
a = {{ sql = "step_a" }}
slow = {{ sql = "slow", timeout = "300ms" }}
[job.waits]
arguments = {{ job_id = "id" }}
{ONCE}
[job.waits.steps]
a = {{ sql = "step_a" }}
waits = {{ sql = "waits" }}
[job.idle]
python = "tests.stress.idle_jobs:idle"
{ONCE}
"""
STEPS = """
    create table taken (id integer); insert into taken values (1);
    create function slow(job_id bigint) returns void language sql as $$ select evidence.step(job_id, 'slow', 30) $$;
    create function waits(job_id bigint) returns void language plpgsql set lock_timeout = '100ms' as $$ begin
      perform evidence.step(job_id, 'waits', 0); update taken set id = 2;
    end $$;
"""
SOON = 3.0  # seconds; the client's own deadline comes 5.5 s after the server's
HIT = {"slow": "StepTimeout", "waits": "55P03", "idle": ""}  # what its error says; a lost session has many names


@experiment("23-server-timeouts", fast=8, nightly=60)
async def server_timeouts(place: Place, report: Report) -> None:
    """statement_timeout, lock_timeout and idle-in-transaction hit a step; idle_session_timeout hits between steps."""
    await create_steps(place)
    await place.connection.execute(STEPS)
    name = await place.connection.fetchval("select current_database()")
    for setting in ("idle_in_transaction_session_timeout = '200ms'", "idle_session_timeout = '700ms'"):
        await place.connection.execute(f"alter database {name} set {setting}")
    await place.started(place.spawn(place.configure(FREE + JOBS, DEFAULT_TERMS)))
    async with _table_taken(place):
        for _ in range(report.planned // 4):
            for job_type in HIT:
                await place.connection.execute("select worker.enqueue($1, $2)", job_type, '{"ms": 500}')
            await produce_free(place, 20)
            await settle_all(place, report)
            before = set(await sessions(place))
            await asyncio.sleep(1.2)  # nothing to do for anybody: sessions are idle for too long
            report.injected += bool(before - set(await sessions(place)))
    await _each_alone(place, report)
    report.figures |= errors_said(place)
    await place.judge(report)


@asynccontextmanager
async def _table_taken(place: Place) -> AsyncIterator[None]:
    holder = await asyncpg.connect(place.dsn, server_settings={"idle_in_transaction_session_timeout": "0"})
    try:
        await holder.execute("begin; lock table taken in exclusive mode")
        yield
    finally:
        await holder.close(timeout=5)


async def _each_alone(place: Place, report: Report) -> None:
    """Each timeout failed its own step and nothing else; that step left no effect."""
    for job_type, said in HIT.items():
        jobs = await place.connection.fetch(
            "select status, finish_reason, errors::text, extract(epoch from finished_at - started_at) as seconds"
            " from worker.job_queue where job_type = $1", job_type,
        )  # fmt: skip
        hit = [job for job in jobs if job["status"] == "failed" and said in job["errors"] and job["seconds"] < SOON]
        report.injected += len(hit)
        report.expect(len(hit) == len(jobs), f"{job_type}: {[tuple(job) for job in jobs if job not in hit][:2]}")
    left = await place.connection.fetchval("select count(*) from evidence.fx where step in ('slow', 'waits', 'idle')")
    report.expect(left == 0, f"{left} effects of steps that failed")
    others = await place.connection.fetchval(
        "select count(*) from worker.job_queue where job_type = 'free' and status <> 'completed'"
    )
    report.expect(others == 0, f"{others} jobs failed that nothing had hit")
    beside = await place.connection.fetchval(
        "select count(*) from worker.job_queue j where job_type in ('slow', 'waits') and not exists"
        " (select from worker.job_step s where s.job_id = j.id and s.name = 'a' and s.status = 'completed')"
    )
    report.expect(beside == 0, f"{beside} steps beside the one that was hit did not complete")
