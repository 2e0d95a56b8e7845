"""D.2: Postgres hangs: one backend, the postmaster, all of it, or a table that is locked. Nothing is closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import asyncpg

from tests.heart import until
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
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
from tests.stress.workload import FREE, account, produce_free

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
SLOW = """
[job.slow]
arguments = { job_id = "id" }
steps = { slow = { sql = "slow", timeout = "1500ms" } }
"""
SLOW_STEP = """
    create function slow(job_id bigint) returns void language sql as $$ select evidence.step(job_id, 'slow', 0.5) $$
"""
SLOW_JOBS = "select worker.enqueue('slow') from generate_series(1, 4)"
AIM_SECONDS = 10.0
# Each is stopped while it waits and holds nothing that others need: in the middle of a commit or with a page in its
# hands it would stop the whole server. A claim waits for a row that is locked for that moment, a step sleeps.
WAITS = {
    "control": "select wait_event_type = 'Lock' and query ~ 'worker.claim' from pg_stat_activity where pid = $1",
    "step": "select wait_event = 'PgSleep' and query ~ 'worker.run_step' from pg_stat_activity where pid = $1",
}
# How long each hangs, and for how long at most nothing may be done: the deadline of a control call is 10 s, of the step
# its timeout and 5.5 s, which others do not wait for; the whole server takes as long as it takes, and a knock.
HANGS = {
    "control": (13.0, 12.0),
    "step": (9.0, 2.0),
    "listen": (2.0, 2.0),
    "beat": (3.0, 3.0),
    "postmaster": (3.0, 2.0),
    "server": (4.0, 8.0),
}


@experiment("15-frozen-backends", own_server=True, quiet=True, fast=6)
async def frozen_backends(place: Place, report: Report) -> None:
    """SIGSTOP of one backend of each duty, of the postmaster, of the whole server: nothing is closed or answers."""
    await place.connection.execute(SLOW_STEP)
    await place.started(place.spawn(place.configure(FREE + SLOW, DEFAULT_TERMS)))
    async with stocked(place, 40, FREE_JOBS, SLOW_JOBS):
        for what, (held, most) in HANGS.items():
            await flowing(place)
            since = await place.connection.fetchval("select clock_timestamp()")
            async with _hung(place, what):
                report.injected += 1
                await asyncio.sleep(held)
            await flowing(place)
            gap = await longest_gap(place, since)
            report.figures[f"gap_{what}_s"] = round(gap, 2)
            report.expect(
                gap <= most * report.slack, f"{what} hung for {held:g} s, and nothing was done for {gap:.1f} s of it"
            )
    await settle_all(place, report)
    await unharmed(place, report, attempts=5)
    report.expect(report.figures["most_attempts"] > 1, "the step that hung was not given up at its deadline")
    report.figures |= errors_said(place)
    await place.judge(report)
    await account(place, report)


@asynccontextmanager
async def _hung(place: Place, what: str) -> AsyncIterator[None]:
    """Of the duties that call, a backend in the middle of a call; of the others the one there is."""
    with ExitStack() as stopped:
        if what == "postmaster":
            stopped.enter_context(frozen([place.server.pid]))
        elif what == "server":
            stopped.enter_context(frozen(processes(place.server.pid)))
        elif what in WAITS:
            await _catch(place, what, stopped)
        else:
            stopped.enter_context(frozen((await sessions(place, what))[:1]))
        yield


async def _catch(place: Place, duty: str, stopped: ExitStack) -> None:
    holder = await asyncpg.connect(place.dsn)
    try:
        async with asyncio.timeout(AIM_SECONDS), holder.transaction():
            if duty == "control":
                await holder.execute("select from worker.process for update")
            while True:
                for pid in await sessions(place, duty):
                    with ExitStack() as this:
                        this.enter_context(frozen([pid]))
                        if await place.connection.fetchval(WAITS[duty], pid):
                            stopped.enter_context(this.pop_all())
                            return
                await asyncio.sleep(0.005)
    finally:
        await holder.close(timeout=5)


@experiment("16-locked-table", quiet=True, nightly=2)
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
