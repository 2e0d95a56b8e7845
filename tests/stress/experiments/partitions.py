"""D.3: the network parts a host from the database, both ways or one way, for a while or for good."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tests.heart import until
from tests.processes import Daemon
from tests.stress.diary import moments
from tests.stress.experiment import Report, experiment
from tests.stress.jobs import OVERLAPS, lines
from tests.stress.namespaces import Cable, cable, place_across
from tests.stress.place import Place
from tests.stress.slow_jobs import SLOW_JOBS

LEASE = 6.0
TERMS = f'lease = "{LEASE:g}s"\npoll = "500ms"\ngrace = "5s"\n'  # beat, fence and missing at their default
FENCE = 2.0
BACK_SECONDS = 20.0
STUCK_SECONDS = 35.0  # promised where the host vanishes
RUNS_AT = """
    select exists (select from worker.job_queue j join worker.process p on p.id = j.claimed_by
                   where j.id = $1 and j.status = 'running' and p.pid = $2)
"""
STARTED_AGAIN = "select count(distinct new_claim) > 1 from evidence.hist where job_id = $1 and new_status = 'running'"
OVER = "select status in ('completed', 'cancelled') from worker.job_queue where id = $1"
DEATHS = "select count(*) from worker.process where dead_at is not null"
ALIVE = """
    select exists (select from worker.process where pid = $1 and dead_at is null and stopped_at is null
                     and beat_at > clock_timestamp() - interval '1 s')
"""


@experiment("35-partition", nightly=5, limit=200)
async def partition(place: Place, report: Report) -> None:
    """Down for the lease less a second, plus a second, and long; then only what it sends, only what it gets is lost."""
    with cable() as laid:
        async with place_across(place, laid) as (there, address):
            config = there.configure(SLOW_JOBS, TERMS)
            far, near = there.spawn(config, address, prefix=laid.prefix), there.spawn(config)
            await there.started(far, near)
            for name, seconds, cut in (
                ("shorter", LEASE - 1, laid.plug),
                ("longer", LEASE + 1, laid.plug),
                ("long", 2.5 * LEASE, laid.plug),
                ("sends", 2 * LEASE, _one_way(laid, "OUTPUT")),
                ("gets", 2 * LEASE, _one_way(laid, "INPUT")),
            ):
                await _parted(there, report, far, name, seconds, cut)
            await there.judge(report)
            beside = lines(there.folder, OVERLAPS)
            report.figures["overlaps"] = len(beside)
            report.expect(not beside, f"{len(beside)} executions of one job ran side by side")


def _one_way(laid: Cable, chain: str) -> Callable[[bool], None]:
    return lambda plugged: laid.drop(chain, not plugged)


async def _parted(  # noqa: PLR0917
    there: Place, report: Report, far: Daemon, name: str, seconds: float, cut: Callable[[bool], None]
) -> None:
    """A partition while the parted one runs a job that outlasts it."""
    job = await _running_at(there, far)
    deaths, fences = await there.connection.fetchval(DEATHS), len(moments(far, "lease.fenced"))
    began = time.time()
    cut(False)
    try:
        report.injected += 1
        await asyncio.sleep(seconds)
        died = await there.connection.fetchval(DEATHS) - deaths
    finally:
        cut(True)
    await until(there.connection, ALIVE, far.pid, seconds=BACK_SECONDS)
    report.figures[f"{name}_back_s"] = round(time.time() - began - seconds, 1)
    await until(there.connection, OVER, job, seconds=BACK_SECONDS)
    fenced = [at - began for at in moments(far, "lease.fenced")[fences:]]
    report.expect(bool(fenced) and fenced[0] < LEASE, f"{name}: it did not stop itself before its lease was over")
    report.figures[f"{name}_fenced_s"] = round(fenced[0], 1) if fenced else None
    report.expect((died > 0) == (seconds > LEASE + 3.5), f"{name}: {died} deaths after {seconds:g} s")


async def _running_at(there: Place, far: Daemon) -> int:
    """A job that this one runs; those that the other took are called off."""
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            job: int = await there.connection.fetchval("""select worker.enqueue('slow', '{"seconds": 60}')""")
            await until(there.connection, "select status = 'running' from worker.job_queue where id = $1", job)
            if await there.connection.fetchval(RUNS_AT, job, far.pid):
                return job
            await there.connection.execute("select worker.cancel($1)", job)


@experiment("35-vanished-host", nightly=1, limit=120)
async def vanished_host(place: Place, report: Report) -> None:
    """A host goes without a FIN, at default settings: its session lives on until the server's keepalive."""
    with cable() as laid:
        async with place_across(place, laid) as (there, address):
            config: Path = there.configure(SLOW_JOBS, worker='grace = "1s"')
            far, near = there.spawn(config, address, prefix=laid.prefix), there.spawn(config)
            await there.started(far, near)
            job = await _running_at(there, far)
            began = time.monotonic()
            laid.plug(False)
            far.kill()
            report.injected += 1
            await until(there.connection, STARTED_AGAIN, job, seconds=60)
            taken_over = time.monotonic() - began
            report.figures["taken_over_s"] = round(taken_over, 1)
            report.expect(taken_over <= STUCK_SECONDS, f"taken over after {taken_over:.0f} s")
            await until(there.connection, OVER, job, seconds=BACK_SECONDS)
            laid.plug(True)
            await there.judge(report)
