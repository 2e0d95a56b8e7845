"""D.1: all daemons are stopped at once and go on later, as when a machine sleeps, with their Postgres or without it."""

import asyncio

from tests.stress.census import EACH, counted
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    FREE_JOBS,
    GRAPH_JOBS,
    KEYED_JOBS,
    flowing,
    frozen,
    processes,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.workload import MIXED, account, create_steps

DAEMONS = 3
PAUSES = (10.0, 5.0)  # seconds: more than the compressed lease
AWAKE = 0.4  # seconds between the two, at most: less than it takes to come back
CATCH_UP = 5.0


@experiment("5-pause", own_server=True, nightly=12, quiet=True)
async def pause(place: Place, report: Report) -> None:
    """SIGSTOP of all daemons for longer than the lease, twice in a row, often with Postgres too: nobody is dead."""
    await create_steps(place)
    config = place.configure(MIXED)
    await place.started(*[place.spawn(config) for _ in range(DAEMONS)])
    async with counted(place) as census, stocked(place, 100, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS):
        while report.injected < report.planned:
            await flowing(place)
            with_postgres = report.injected % 4 >= 2
            stopped = [each.pid for each in place.daemons] + (processes(place.server.pid) if with_postgres else [])
            for seconds in PAUSES:
                with frozen(stopped):
                    report.injected += 1
                    await asyncio.sleep(seconds)
                await asyncio.sleep(place.chance.uniform(0, AWAKE))
            report.recovery.append(await flowing(place, 30))
    await settle_all(place, report)
    report.expect(max(report.recovery) <= CATCH_UP, f"nothing was completed for {max(report.recovery):.1f} s")
    report.figures["peak_backends"] = census.most
    report.expect(0 < census.most <= DAEMONS * EACH, f"{census.most} connections at once, {DAEMONS * EACH} are stated")
    said = place.count_said("service.declared_dead")
    report.expect(said == 0, f"{said} daemons were declared dead")
    await unharmed(place, report)
    await place.judge(report, "I14")  # a statement that was stopped halfway bears the time at which it began
    await account(place, report)
