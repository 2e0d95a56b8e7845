"""D.1: many daemons start at once, several migrate at once, and daemons die over and over under a supervisor."""

import asyncio
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import asyncpg

from tests.heart import becomes
from tests.processes import die_with_parent
from tests.stress.census import EACH, counted
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import DEFAULT_TERMS, FALSE_RESCUES, server_of_its_own
from tests.stress.supervisor import FIRST, supervised
from tests.stress.workload import MIXED, account, create_steps, produce, producing
from tests.support import ROOT, server_folder

CROWD = 20
RESERVED = 20  # connections of the experiment itself
MIGRATORS = 5
MIGRATIONS = 4  # rounds of so many at once
DOOMED = 3  # supervised daemons
LIFE = (0.0, 1.5)  # seconds that one of them is given after its start: some die before they claim
SCHEMA = """
    select md5(string_agg(said, e'\\n' order by said)) from (
      select concat_ws(' ', p.oid::regprocedure, md5(p.prosrc)) from pg_proc p
        where pronamespace = 'worker'::regnamespace
      union all select concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod)) from pg_attribute a
        join pg_class c on c.oid = a.attrelid where relnamespace = 'worker'::regnamespace and not attisdropped
      union all select concat_ws(' ', name, digest) from worker.migration) s (said)
"""


@experiment("9-crowd", nightly=CROWD + MIGRATORS * MIGRATIONS)
async def crowd(outer: Place, report: Report) -> None:
    """`worker migrate` five at once on an empty database, twenty daemons at once: schema, connections, liveness."""
    with server_folder() as folder:
        async with server_of_its_own(outer, folder, max_connections=str(CROWD * EACH + RESERVED)) as place:
            expected = await place.connection.fetchval(SCHEMA)
            for _ in range(MIGRATIONS):
                await migrated_together(place, report, expected)
            await started_together(place, report)


async def started_together(place: Place, report: Report) -> None:
    """As many daemons as the server has connections for, by what `worker check` says; far too many for its cores."""
    await create_steps(place)
    config = place.configure(MIXED, DEFAULT_TERMS)
    async with counted(place) as census:
        began = time.monotonic()
        report.injected += len([place.spawn(config) for _ in range(CROWD)])
        await place.started(*place.daemons)
        report.figures["all_claim_after_s"] = round(time.monotonic() - began, 1)
        await produce(place, 2_000)
        report.expect(await place.settled(60), "not all jobs are final after 60 s")
    most, rescues = CROWD * EACH, await place.connection.fetchval(FALSE_RESCUES)
    report.figures |= {"peak_backends": census.most, "stated": most, "false_rescues": rescues}
    report.expect(0 < census.most <= most, f"{census.most} connections at once, {most} are stated")
    report.expect(rescues == 0, "somebody was declared dead, and nobody had died")
    await place.judge(report)
    await account(place, report)


@experiment("9-crash-loop", nightly=42, quiet=True)
async def crash_loop(place: Place, report: Report) -> None:
    """Daemons that die young, again and again, restarted later and later; one lives and keeps the queue going."""
    await create_steps(place)
    config = place.configure(MIXED)
    await place.started(place.spawn(config))
    async with counted(place) as census, producing(place, 100):
        doomed = min(DOOMED, report.planned // 2)
        pauses = await asyncio.gather(*[doom(place, config, report.planned // doomed) for _ in range(doomed)])
    report.injected = len(place.killed)
    report.expect(await place.settled(60), "not all jobs are final after 60 s")
    report.expect(all(each == sorted(each) and each[0] > FIRST for each in pauses), f"no back-off: {pauses}")
    unclaimed = await place.connection.fetchval(
        "select max(extract(epoch from started_at - created_at))::float8 from worker.job_queue"
    )
    report.figures |= {"peak_backends": census.most, "longest_wait_s": round(unclaimed, 2)}
    report.expect(0 < census.most <= (doomed + 1) * EACH, f"{census.most} connections at once")
    await place.judge(report)
    await account(place, report)


async def doom(place: Place, config: Path, deaths: int) -> list[float]:
    """Kill a supervised daemon again and again; answers with how long it was down each time."""
    async with supervised(place, config) as supervisor:
        for _ in range(deaths):
            await asyncio.sleep(place.chance.uniform(*LIFE))
            victim = supervisor.daemon
            place.kill(victim)
            await becomes(lambda: supervisor.daemon is not victim)  # noqa: B023 - awaited here
        return supervisor.pauses


async def migrated_together(place: Place, report: Report, expected: str) -> None:
    """`worker migrate` several times at once on an empty database: each ends well, and the schema is the one of one."""
    name = f"empty_{uuid.uuid4().hex[:8]}"
    await place.connection.execute(f"create database {name}")
    environment = {**os.environ, "DATABASE_URL": place.server.dsn(name)}
    command = [sys.executable, "-m", "worker", "migrate", "--config", str(place.configure(MIXED))]
    started = [
        subprocess.Popen(  # noqa: ASYNC220 - it does not wait
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, nothing that takes a lock
        )
        for _ in range(MIGRATORS)
    ]  # fmt: skip
    report.injected += MIGRATORS
    try:
        await becomes(lambda: all(each.poll() is not None for each in started), 120)
    finally:
        for each in started:
            each.kill()
    said = [each.communicate()[0][-300:] for each in started]
    report.expect({each.returncode for each in started} == {0}, f"migrations at once: {said}")
    connection = await asyncpg.connect(place.server.dsn(name))
    found = await connection.fetchval(SCHEMA)
    await connection.close()
    report.expect(found == expected, "migrations at once made another schema than one alone")
