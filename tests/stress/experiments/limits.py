"""D.2: no connection is left for the daemons: somebody else has them all, or their role may have fewer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from tests.stress.asking import Readiness, metric
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    FREE_JOBS,
    GRAPH_JOBS,
    daemon_role,
    end_sessions,
    errors_said,
    few_attempts,
    flowing,
    longest_gap,
    server_of_its_own,
    sessions,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.workload import MIXED, account, create_steps
from tests.support import server_folder

MOST_CONNECTIONS = 40
HELD_SECONDS = 5.0
LIMIT = 4  # of the role: its daemons hold more than that already
REFUSED = 'worker_database_errors_total{sqlstate_class="53"}'
GAP_SECONDS = 2.0


@experiment("18-no-connections", quiet=True, nightly=2)
async def no_connections(outer: Place, report: Report) -> None:
    """A hog takes max_connections; then the role's CONNECTION LIMIT is lowered; steps' sessions end meanwhile."""
    with server_folder() as folder:
        async with server_of_its_own(outer, folder, max_connections=str(MOST_CONNECTIONS)) as place:
            await create_steps(place)
            dsn = await daemon_role(place)
            await place.connection.execute("create role hog login")
            readiness = Readiness()
            config = place.configure(few_attempts(MIXED) + readiness.section, DEFAULT_TERMS)
            await place.started(place.spawn(config, dsn))
            async with stocked(place, 60, FREE_JOBS, GRAPH_JOBS):
                for phase in (_hogged, _lowered):
                    await flowing(place)
                    since = await place.connection.fetchval("select clock_timestamp()")
                    refused = await metric(readiness.port, REFUSED)
                    async with phase(place):
                        await _without_steps(place)
                    report.injected += await metric(readiness.port, REFUSED) > refused
                    gap = await longest_gap(place, since)
                    report.figures[f"gap_{phase.__name__[1:]}_s"] = round(gap, 2)
                    report.expect(gap <= GAP_SECONDS, f"nothing was done for {gap:.1f} s while {phase.__name__[1:]}")
                    report.figures[f"back_after_{phase.__name__[1:]}_s"] = round(await flowing(place), 2)
            await settle_all(place, report)
            await unharmed(place, report)
            report.figures |= errors_said(place)
            await place.judge(report)
            await account(place, report)


async def _without_steps(place: Place) -> None:
    """The sessions of the steps end, and no new one is let in; control, beat and listener keep theirs."""
    kept = {duty: await sessions(place, duty) for duty in ("beat", "listen")}
    await end_sessions(place, "step")
    await asyncio.sleep(HELD_SECONDS)
    assert {duty: await sessions(place, duty) for duty in kept} == kept, "a session was lost that nobody had ended"


@asynccontextmanager
async def _hogged(place: Place) -> AsyncIterator[None]:
    """Somebody who takes every connection there is, and each that becomes free."""
    held: list[asyncpg.Connection] = []

    async def take() -> None:
        while True:
            with suppress(asyncpg.PostgresError, OSError):
                held.append(await asyncpg.connect(place.dsn.replace("postgres@", "hog@", 1), timeout=2))
                continue
            await asyncio.sleep(0.005)

    hog = asyncio.create_task(take())
    await asyncio.sleep(1)
    try:
        yield
    finally:
        hog.cancel()
        await asyncio.gather(hog, return_exceptions=True)
        for each in held:
            await each.close(timeout=5)


@asynccontextmanager
async def _lowered(place: Place) -> AsyncIterator[None]:
    await place.connection.execute(f"alter role daemon connection limit {LIMIT}")
    try:
        yield
    finally:
        await place.connection.execute("alter role daemon connection limit -1")
