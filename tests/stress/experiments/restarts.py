"""D.2: Postgres crashes, stops, starts; what the daemons do while nobody lets them in."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from tests.stress.asking import Readiness
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.place import Place
from tests.stress.postgres import (
    FREE_JOBS,
    GRAPH_JOBS,
    KEYED_JOBS,
    errors_said,
    few_attempts,
    flowing,
    restarted,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.telling import percentile
from tests.stress.workload import FREE, MIXED, account, create_steps, produce

TERMS = 'poll = "500ms"\ngrace = "5s"\n'  # the rest at its default
JOBS = 5_000  # in the long run
READY_SECONDS = 5.0  # I11: how soon readiness tells of a total fault, and of its end
HELD_SECONDS = 8.0
CONNECTS_A_SECOND = 2.0  # of one worker, while nobody lets it in
SETTLING_SECONDS = 2.0  # of a phase, in which sessions end and are tried anew at once


@experiment("11-restart-loop", own_server=True, quiet=True, fast=4, nightly=40)
async def restart_loop(place: Place, report: Report) -> None:
    """Postgres crashes (immediate stop) again and again, and is down for up to three seconds."""
    long = report.planned > 10
    await create_steps(place)
    readiness = Readiness()
    await _pair(place, few_attempts(MIXED), readiness, place.dsn, place.dsn)
    if long:
        await produce(place, JOBS)
    first_job = []
    async with stocked(place, 80, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS), readiness.watched():
        for _ in range(report.planned):
            await flowing(place)
            await asyncio.sleep(place.chance.uniform(0.1, 1.0 if long else 0.3))
            down = place.chance.uniform(0, 1 if place.chance.random() < 0.8 else 3)
            await restarted(place, "immediate", down if long else down / 3)
            report.injected += 1
            first_job.append(await flowing(place))
        soon = READY_SECONDS * report.slack
        report.expect(await readiness.becomes(True, soon) <= soon, f"not ready {soon:g} s after the last restart")
    report.figures["first_job_p50_s"] = round(percentile(first_job, 0.5), 2)
    report.figures["first_job_p99_s"] = round(percentile(first_job, 0.99), 2)
    await _judged(place, report)


@experiment("14-shut-out", own_server=True, quiet=True, nightly=4)
async def shut_out(place: Place, report: Report) -> None:
    """Shutting down (57P03, then 57P01), refused, starting up (57P03), each held; how often the daemons knock."""
    readiness = Readiness()
    async with AsyncExitStack() as ending:
        doors = [await ending.enter_async_context(faulty(place.dsn, seed)) for seed in (1, 2)]
        await _pair(place, few_attempts(FREE), readiness, doors[0].dsn, doors[1].dsn)
        async with stocked(place, 40, FREE_JOBS), readiness.watched():
            for phase in (_shutting_down, _refused, _starting_up):
                await flowing(place)
                async with phase(place):
                    began = time.monotonic()
                    report.injected += 2 if phase is _shutting_down else 1
                    await _knocked(report, doors, readiness, phase)
                if phase is not _shutting_down:  # there sessions live on
                    readiness.outages.append((began, time.monotonic()))
                await _over(place, report, readiness, phase.__name__[1:])
        await readiness.tell(place.connection)
        await _judged(place, report)


async def _pair(place: Place, jobs: str, readiness: Readiness, *dsns: str) -> None:
    """Two daemons, the first of which answers on /readyz; they have one file, so one after the other."""
    for number, dsn in enumerate(dsns):
        config = place.configure(jobs + ("" if number else readiness.section), TERMS)
        await place.started(place.spawn(config, dsn))


async def _judged(place: Place, report: Report) -> None:
    await settle_all(place, report)
    await unharmed(place, report)
    report.figures |= errors_said(place)
    await place.judge(report)
    await account(place, report)


async def _knocked(
    report: Report, doors: list[FaultProxy], readiness: Readiness, phase: Callable[[Place], object]
) -> None:
    """Hold a phase; count what each daemon asks for once the first rush is over."""
    name = phase.__name__[1:]
    if phase is not _shutting_down:  # there sessions live on
        gone = await readiness.becomes(False, READY_SECONDS)
        report.expect(gone <= READY_SECONDS, f"still ready after {READY_SECONDS:g} s of {name}")
    await asyncio.sleep(SETTLING_SECONDS)
    began = time.monotonic()
    await asyncio.sleep(HELD_SECONDS)
    for door in doors:
        a_second = sum(at > began for at in door.knocks) / HELD_SECONDS
        most = report.figures.get(f"{name}_connects_a_second", 0.0)
        report.figures[f"{name}_connects_a_second"] = round(max(most, a_second), 2)
        report.expect(a_second <= CONNECTS_A_SECOND, f"{a_second:.1f} connects a second of one daemon in phase {name}")


async def _over(place: Place, report: Report, readiness: Readiness, name: str) -> None:
    """A phase has ended: work goes on, and readiness says so."""
    await place.reconnect()
    report.figures[f"{name}_to_first_job_s"] = round(await flowing(place), 2)
    back = await readiness.becomes(True, READY_SECONDS)
    report.expect(back <= READY_SECONDS, f"not ready {READY_SECONDS:g} s after {name} was over")


@asynccontextmanager
async def _shutting_down(place: Place) -> AsyncIterator[None]:
    """A smart stop: whoever is in stays until a fast one (57P01); nobody else is let in."""
    os.kill(place.server.pid, signal.SIGTERM)
    yield
    await restarted(place, "fast")


@asynccontextmanager
async def _refused(place: Place) -> AsyncIterator[None]:
    """Nobody listens."""
    await asyncio.to_thread(place.server.stop, "fast")
    yield
    await asyncio.to_thread(place.server.restart)


@asynccontextmanager
async def _starting_up(place: Place) -> AsyncIterator[None]:
    """A standby that takes no queries, until it is promoted."""
    cluster = place.server.data / "cluster"
    await place.connection.execute("alter system set hot_standby = off")
    await asyncio.to_thread(place.server.stop, "fast")
    (cluster / "standby.signal").touch()
    starting = asyncio.create_task(asyncio.to_thread(place.server.restart))  # back when it is ready
    try:
        await _answers_57p03(place)
        yield
    finally:
        (cluster / "promote").touch()
        os.kill(int((cluster / "postmaster.pid").read_text().split()[0]), signal.SIGUSR1)
        await starting


async def _answers_57p03(place: Place) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                await asyncpg.connect(place.dsn, timeout=1)
            except asyncpg.CannotConnectNowError:
                return
            except OSError:
                await asyncio.sleep(0.05)
