"""D.3: a network that is slow, thin, or loses what it is given."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.place import Place
from tests.stress.workload import MIXED, account, create_steps, producing

PHASE_SECONDS = 15.0
SETTLE_SECONDS = 60.0
COMPLETED = "select count(*) from worker.job_queue where status = 'completed'"
DECLARED_DEAD = "select count(*) from worker.process where dead_at is not null"


class Weather(NamedTuple):
    """How a proxy carries: seconds that a chunk waits each way, bytes a second, share that is lost and sent again."""

    delay: tuple[float, float] = (0.0, 0.0)
    rate: int = 0
    stalls: float = 0.0


CLEAR = Weather()
WEATHERS = {
    "latency": Weather(delay=(0.0, 0.2)),  # of a round trip 200 ms, more or less 200
    "thin": Weather(rate=20_000),
    "loss": Weather(delay=(0.005, 0.01), stalls=0.05),
}


@experiment("32-slow-network", nightly=3, limit=250)
async def slow_network(place: Place, report: Report) -> None:
    """200 ms ± 200 ms, then 20 kB/s, then 5 % loss: slower, and nobody is taken for dead."""
    await create_steps(place)
    config = place.configure(MIXED, worker='grace = "10s"')
    async with contextlib.AsyncExitStack() as ending:
        proxies = [await ending.enter_async_context(faulty(place.dsn, seed)) for seed in (1, 2)]
        await place.started(*[place.spawn(config, proxy.dsn) for proxy in proxies])
        asking = await asyncpg.connect(place.dsn)  # the place's own is busy with producing
        ending.push_async_callback(asking.close, timeout=5)
        async with producing(place, 200):
            report.figures["clear_jobs_per_s"] = await _pace(asking, PHASE_SECONDS / 3)
            for name, weather in WEATHERS.items():
                fenced = place.count_said('"lease.fenced"')
                report.figures[f"{name}_jobs_per_s"] = await _weathered(asking, proxies, weather)
                report.injected += 1
                report.figures[f"{name}_fenced"] = place.count_said('"lease.fenced"') - fenced
        report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
        for name in WEATHERS:
            report.expect(report.figures[f"{name}_jobs_per_s"] > 0, f"{name}: nothing was done any more")
            fenced = report.figures[f"{name}_fenced"]
            report.expect(fenced == 0, f"{name}: a lease was lost {fenced} times, though beats came through")
        dead = await place.connection.fetchval(DECLARED_DEAD)
        report.expect(dead == 0, f"{dead} processes were taken for dead, and all of them lived")
        await place.judge(report)
    await account(place, report)
    report.expect(not report.stale_refused, f"{report.stale_refused} verdicts were refused, and nobody had died")


async def _weathered(asking: asyncpg.Connection, proxies: Sequence[FaultProxy], weather: Weather) -> float:
    """Jobs completed in a second, in this weather."""
    _set(proxies, weather)
    try:
        return await _pace(asking, PHASE_SECONDS)
    finally:
        _set(proxies, CLEAR)


def _set(proxies: Sequence[FaultProxy], weather: Weather) -> None:
    for proxy in proxies:
        proxy.delay, proxy.rate, proxy.stalls = weather


async def _pace(asking: asyncpg.Connection, seconds: float) -> float:
    before, began = await asking.fetchval(COMPLETED), time.monotonic()
    await asyncio.sleep(seconds)
    return round((await asking.fetchval(COMPLETED) - before) / (time.monotonic() - began), 1)
