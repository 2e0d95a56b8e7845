"""D.2: sessions of the daemons are ended, their statements cancelled, their backends killed."""

import asyncio
import os
import signal

from tests.heart import becomes, until
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    CANCEL,
    DEFAULT_TERMS,
    DUTIES,
    FREE_JOBS,
    GRAPH_JOBS,
    KEYED_JOBS,
    end_sessions,
    errors_said,
    few_attempts,
    flowing,
    sessions,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.workload import MIXED, account, create_steps

BLOWS_A_SECOND = 5.0
BACK_SECONDS = 10.0  # until a duty has a session again
STEP_CONNECTIONS = 8  # the default, and concurrency in DEFAULT_TERMS
WIDE = """
[job.wide]
arguments = { job_id = "id" }
[job.wide.steps]
wide = { sql = "wide" }
"""
BUSY_STEPS = """
    select count(*) = $1 from pg_stat_activity
    where datname = current_database() and application_name = 'worker step' and state = 'active'
"""
EACH_ONCE = """
    select count(*) = 2 from (select application_name from pg_stat_activity where datname = current_database()
      and application_name in ('worker listen', 'worker beat') group by 1 having count(*) = $1) found
"""


@experiment("12-terminated-sessions", fast=27, nightly=180)
async def terminated_sessions(place: Place, report: Report) -> None:
    """pg_terminate_backend: every session five times a second, then the listener's, control's, beat's, steps' alone."""
    daemons = await _daemons(place)
    aimed = report.planned // 9
    async with stocked(place, 80, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS):
        await flowing(place)
        for duty in ("",) * (report.planned - 4 * aimed) + DUTIES * aimed:
            await asyncio.sleep(1 / BLOWS_A_SECOND)
            async with asyncio.timeout(BACK_SECONDS):
                while not await end_sessions(place, duty):
                    await asyncio.sleep(0.05)
            report.injected += 1
        report.figures["to_first_job_s"] = round(await flowing(place), 2)
    await _healed(place, report, daemons)


@experiment("13-cancelled-statements", nightly=100)
async def cancelled_statements(place: Place, report: Report) -> None:
    """pg_cancel_backend for every session of the daemons, ten times a second."""
    daemons = await _daemons(place)
    async with stocked(place, 80, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS):
        await flowing(place)
        for _ in range(report.planned):
            await asyncio.sleep(1 / BLOWS_A_SECOND / 2)
            report.injected += len(await place.connection.fetch(CANCEL, "")) > 0
        report.figures["to_first_job_s"] = round(await flowing(place), 2)
    await _healed(place, report, daemons, attempts=5)


@experiment("13-killed-backends", own_server=True, nightly=12)
async def killed_backends(place: Place, report: Report) -> None:
    """kill -9 of one backend: the postmaster throws everybody out and starts its recovery."""
    daemons = await _daemons(place)
    async with stocked(place, 80, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS):
        for number in range(report.planned):
            await flowing(place)
            await asyncio.sleep(place.chance.uniform(0.2, 2.0))
            duty = DUTIES[number % len(DUTIES)]
            async with asyncio.timeout(BACK_SECONDS):
                while not (aimed := await sessions(place, duty)):
                    await asyncio.sleep(0.05)
            os.kill(place.chance.choice(aimed), signal.SIGKILL)
            report.injected += 1
            await becomes(place.connection.is_closed)
            await place.reconnect()
    await _healed(place, report, daemons)


async def _daemons(place: Place) -> int:
    """Two daemons at the default terms, under a mixed load of jobs with the default number of attempts."""
    await create_steps(place)
    await place.connection.execute(
        "create function wide(job_id bigint) returns void language sql"
        " as $$ select evidence.step(job_id, 'wide', 0.5) $$"
    )
    config = place.configure(few_attempts(MIXED) + WIDE, DEFAULT_TERMS)
    daemons = [place.spawn(config), place.spawn(config)]
    await place.started(*daemons)
    return len(daemons)


async def _healed(place: Place, report: Report, daemons: int, attempts: int = 1) -> None:
    """Nothing was lost, and neither was a connection: each duty has its own again, and the pools are whole."""
    await settle_all(place, report)
    await unharmed(place, report, attempts)
    await place.connection.execute(
        "select worker.enqueue('wide') from generate_series(1, $1::int)", 4 * daemons * STEP_CONNECTIONS
    )
    try:
        await until(place.connection, BUSY_STEPS, daemons * STEP_CONNECTIONS)
        await until(place.connection, EACH_ONCE, daemons)
    except AssertionError as error:
        report.expect(False, f"connections are lost: {error}")
    await settle_all(place, report)
    report.figures |= errors_said(place)
    await place.judge(report)
    await account(place, report)
