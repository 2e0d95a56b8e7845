"""D.3: connections through which nothing comes any more, and nobody says so."""

import asyncio
import time
from contextlib import suppress

from tests.processes import Daemon
from tests.stress.diary import moments
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import ALL, FaultProxy, faulty
from tests.stress.place import Place
from tests.stress.slow_jobs import SLOW_JOBS
from tests.stress.workload import FREE, MIXED, account, create_steps, produce_free

SETTLE_SECONDS = 30.0
HOLD_SECONDS = 1.0
POLL, LEASE = 0.5, 3.0  # of the compressed settings
PICKED_UP = """
    select extract(epoch from min(h.at) - j.created_at)::float8 from worker.job_queue j
    join evidence.hist h on h.job_id = j.id and h.new_status = 'running' where j.id = $1 group by j.created_at
"""
LONG = """select worker.enqueue('slow', '{"seconds": 12}') from generate_series(1, 4)"""
END = "select worker.cancel(id) from worker.job_queue where job_type = 'slow' and status in ('pending', 'running')"
RESCUED = """
    select extract(epoch from min(at))::float8 from worker.job_event where event = 'rescue' and at > to_timestamp($1)
"""
RUNS_NOW = """
    select exists (select from worker.job_queue j join worker.process p on p.id = j.claimed_by
                   where j.status = 'running' and p.pid = $1)
"""
DEAD_SINCE = "select exists (select from worker.process where dead_at > to_timestamp($1))"


# Not beside others: a machine that is busy with them takes longer to beat than these terms allow.
@experiment("31-black-hole", fast=3, nightly=12)
async def black_hole(place: Place, report: Report) -> None:
    """Of listener, control and steps, one after the other: the lease is kept, and what was held goes on."""
    await create_steps(place)
    config = place.configure(MIXED)
    async with faulty(place.dsn, place.chance.randrange(1000)) as proxy:
        daemon = place.spawn(config, proxy.dsn)
        await place.started(daemon)
        await asyncio.to_thread(daemon.says, '"listener":"heard"')
        for number in range(report.planned):
            duty = ("listen", "control", "step")[number % 3]
            late = await _held(place, report, proxy, duty)
            report.figures[f"{duty}_pick_up_s"] = max(report.figures.get(f"{duty}_pick_up_s", 0.0), round(late, 2))
        report.expect(
            report.figures["listen_pick_up_s"] <= POLL + 0.5, "a job waited longer than a poll for a deaf listener"
        )
        # At compressed terms a machine that is busy with other experiments may fence it as well.
        kept = report.slack > 1 or not moments(daemon, "lease.fenced")
        report.expect(kept, "the lease was lost, though its connection was well")
        await place.judge(report)
    await account(place, report)
    report.expect(report.duplicates == 0, f"{report.duplicates} executions beyond one")


async def _held(place: Place, report: Report, proxy: FaultProxy, duty: str) -> float:
    """A black hole for a while; answers with how long a job that was enqueued meanwhile waited for its start."""
    if duty != "listen":  # there only a ring that nobody hears is to make a job wait
        await place.connection.execute("select worker.enqueue('graph') from generate_series(1, 10)")
        await asyncio.sleep(0.1)
    proxy.hold(duty)
    report.injected += any(link.duty == duty for link in proxy.links)
    job = await place.connection.fetchval("""select worker.enqueue('free', '{"ms": 1}')""")
    await asyncio.sleep(HOLD_SECONDS)
    proxy.release(duty)
    report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final {SETTLE_SECONDS:g} s after {duty}")
    return float(await place.connection.fetchval(PICKED_UP, job))


@experiment("31-black-hole-of-the-lease", fast=2, nightly=8)
async def black_hole_of_the_lease(place: Place, report: Report) -> None:
    """Of the beat, then of everything, beyond the lease: it stops itself first, only then does another take over."""
    config = place.configure(FREE + SLOW_JOBS)
    async with faulty(place.dsn, place.chance.randrange(1000)) as proxy:
        cut, other = place.spawn(config, proxy.dsn), place.spawn(config)
        await place.started(cut, other)
        for number in range(report.planned):
            duty = ("beat", ALL)[number % 2]
            await _running(place, cut)
            await _cut_off(place, report, proxy, duty, cut)
            await produce_free(place, 20)
            await place.connection.execute(END)  # those of the other run for the first time, and would go on
            report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final {SETTLE_SECONDS:g} s after {duty}")
        await place.judge(report)
    await account(place, report)
    report.figures["overlap_s"] = 0.0 if report.figures["executions_side_by_side"] == 0 else "some"


async def _running(place: Place, daemon: Daemon) -> None:
    """Enqueue until this one runs something, and not only the other."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while not await place.connection.fetchval(RUNS_NOW, daemon.pid):
            await place.connection.execute(LONG)
            await asyncio.sleep(0.2)


async def _cut_off(place: Place, report: Report, proxy: FaultProxy, duty: str, cut: Daemon) -> None:
    name, dead, began = duty or "all", "service.declared_dead", time.time()
    deaths = len(moments(cut, dead))
    proxy.hold(duty)
    report.injected += 1
    async with asyncio.timeout(SETTLE_SECONDS):
        while not await place.connection.fetchval(DEAD_SINCE, began):
            await asyncio.sleep(0.02)
    declared = time.time() - began
    proxy.release(duty)
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while len(moments(cut, dead)) == deaths:
                await asyncio.sleep(0.02)
    fenced = [at - began for at in moments(cut, "lease.fenced") if at > began]
    report.expect(bool(fenced), f"{name}: it did not notice that its beats are not confirmed")
    report.expect(declared >= LEASE * 0.9, f"{name}: declared dead after {declared:.2f} s, before its lease was over")
    if fenced:
        report.expect(fenced[0] < LEASE, f"{name}: it stopped itself after {fenced[0]:.2f} s, beyond its lease")
        report.figures[f"{name}_fenced_s"] = max(report.figures.get(f"{name}_fenced_s", 0.0), round(fenced[0], 2))
    report.figures[f"{name}_declared_dead_s"] = round(declared, 2)
    if rescued := await place.connection.fetchval(RESCUED, began):
        report.figures[f"{name}_rescued_s"] = round(rescued - began, 2)
        report.expect(not fenced or rescued - began > fenced[0], f"{name}: rescued before it stopped itself")
