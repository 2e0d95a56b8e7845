"""D.2: Postgres hangs: one backend, the postmaster, all of it, or a table that is locked. Nothing is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.heart import until
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    DUTIES,
    FREE_JOBS,
    errors_said,
    flowing,
    frozen,
    longest_gap,
    processes,
    sessions,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.workload import FREE, account, create_steps, produce_free

HANG_SECONDS = 4.0
LOCKED_SECONDS = 6.0
POLL_SECONDS = 5.0  # the default
MOST_WAITING = 8  # of two daemons: of each a claim, a settle, a sweep and a beat
WAITING = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name ~ '^worker ' and wait_event_type = 'Lock'
"""
RUNNING = "select status = 'running' from worker.job_queue where id = $1"
CLAIMS = """
    select count(*) from evidence.hist
    where job_id = $1 and new_status = 'running' and new_claim is distinct from old_claim
"""
LONG = """
[job.long]
python = "tests.stress.jobs:free"
settings = { folder = "{folder}" }
"""
STEPS = """
[job.single]
arguments = { job_id = "id" }
[job.single.steps]
a = { sql = "step_a", timeout = "2s" }
"""
SINGLE_JOBS = "select worker.enqueue('single') from generate_series(1, 20)"


@experiment("15-frozen-backends", own_server=True, fast=6)
async def frozen_backends(place: Place, report: Report) -> None:
    """SIGSTOP of one backend of each duty, of the postmaster, of the whole server: nothing is closed or answers."""
    await create_steps(place)
    await place.started(place.spawn(place.configure(FREE + STEPS, DEFAULT_TERMS)))
    for what in (*DUTIES, "postmaster", "server"):
        async with stocked(place, 40, FREE_JOBS, SINGLE_JOBS):
            await flowing(place)
            since = await place.connection.fetchval("select clock_timestamp()")
            pids = await _aim(place, what)
            with frozen(pids):
                report.injected += 1
                await asyncio.sleep(HANG_SECONDS)
            await flowing(place)
            report.figures[f"gap_{what}_s"] = round(await longest_gap(place, since), 2)
    await settle_all(place, report)
    await unharmed(place, report)
    report.figures |= errors_said(place)
    await place.judge(report)
    await account(place, report)


async def _aim(place: Place, what: str) -> list[int]:
    if what == "postmaster":
        return [place.server.pid]
    if what == "server":
        return processes(place.server.pid)
    return (await sessions(place, what))[:1]


@experiment("16-locked-table", nightly=2)
async def locked_table(place: Place, report: Report) -> None:
    """ACCESS EXCLUSIVE on job_queue, as a migration takes it, for longer than the fence; with everything at default."""
    config = place.configure(FREE + LONG, worker="")
    await place.started(place.spawn(config), place.spawn(config))
    for _ in range(report.planned):
        long = await place.connection.fetchval("""select worker.enqueue('long', '{"ms": 9000}')""")
        await until(place.connection, RUNNING, long)
        await produce_free(place, 600, ms=200)
        await flowing(place)
        async with _locked(place):
            report.injected += 1
            waiting = []
            for _ in range(int(LOCKED_SECONDS * 10)):
                await asyncio.sleep(0.1)
                waiting.append(await place.connection.fetchval(WAITING))
        report.figures["most_waiting"] = max(*waiting, report.figures.get("most_waiting", 0))
        back = await flowing(place)
        report.figures["resumed_s"] = round(max(back, report.figures.get("resumed_s", 0)), 2)
        await settle_all(place, report)
        claims = await place.connection.fetchval(CLAIMS, long)
        report.expect(claims == 1, f"what ran when the table was locked was begun {claims} times")
    report.expect(report.figures["most_waiting"] <= MOST_WAITING, "sessions pile up before the lock")
    report.expect(report.figures["resumed_s"] <= POLL_SECONDS + 1, "work does not go on within a poll and a second")
    await unharmed(place, report)
    report.figures |= errors_said(place)
    await place.judge(report)
    await account(place, report)


@asynccontextmanager
async def _locked(place: Place) -> AsyncIterator[None]:
    migration = await asyncpg.connect(place.dsn)
    try:
        await migration.execute("begin; lock table worker.job_queue in access exclusive mode")
        yield
    finally:
        await migration.close(timeout=5)
