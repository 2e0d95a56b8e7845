"""D.2: a dump that was made while daemons ran is loaded into a fresh cluster, and daemons start there."""

import asyncio
import shutil
import time
from pathlib import Path

from tests.heart import until
from tests.stress.experiment import Report, experiment
from tests.stress.jobs import RUNS
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    FREE_JOBS,
    GRAPH_JOBS,
    KEYED_JOBS,
    completed,
    flowing,
    program,
    server_of_its_own,
    settle_all,
    stocked,
)
from tests.stress.workload import MIXED, account, create_steps
from tests.support import server_folder

STRANDED = "select count(*) from worker.job_queue where status = 'running'"
RESCUED = "select count(distinct job_id) from worker.job_event where event = 'rescue'"


@experiment("21-restore", own_server=True, nightly=2)
async def restore(place: Place, report: Report) -> None:
    """pg_dump while daemons run, loaded elsewhere: what the dead past holds there is taken over, once."""
    await create_steps(place)
    config = place.configure(MIXED, DEFAULT_TERMS)
    await place.started(place.spawn(config), place.spawn(config))
    async with stocked(place, 80, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS):
        for _ in range(report.planned):
            await flowing(place)
            await asyncio.sleep(place.chance.uniform(0.5, 2))
            roles, dump = place.server.data / "roles.sql", place.server.data / "dump"
            whole = ("-d", place.server.dsn(), "-f", str(roles))
            await asyncio.to_thread(program, place, "pg_dumpall", "--roles-only", *whole)
            await asyncio.to_thread(program, place, "pg_dump", "-Fc", "-d", place.dsn, "-f", str(dump))
            with server_folder() as folder:
                async with server_of_its_own(place, folder) as copy:
                    await _loaded(copy, roles, dump)
                    shutil.copy(place.folder / RUNS, copy.folder / RUNS)
                    report.injected += 1
                    await _lives_on(copy, report)
    await settle_all(place, report)
    await completed(place, report)
    await place.judge(report)
    await account(place, report)


async def _loaded(copy: Place, roles: Path, dump: Path) -> None:
    """The dump as a database of its own; from now on it is the place's."""
    for file in (roles, dump):
        shutil.copy(file, copy.server.data)
        (copy.server.data / file.name).chmod(0o644)
    here = copy.server.data
    maintenance = copy.server.dsn()
    await asyncio.to_thread(program, copy, "psql", "-q", "-d", maintenance, "-f", str(here / roles.name))
    await asyncio.to_thread(program, copy, "psql", "-q", "-d", maintenance, "-c", "create database copy")
    copy.dsn = copy.server.dsn("copy")
    load = ("--exit-on-error", "-d", copy.dsn, str(here / dump.name))
    await asyncio.to_thread(program, copy, "pg_restore", *load)
    await copy.reconnect()


async def _lives_on(copy: Place, report: Report) -> None:
    stranded = await copy.connection.fetchval(STRANDED)
    report.expect(stranded > 0, "nothing ran when the dump was made: the experiment showed nothing")
    config = copy.configure(MIXED, DEFAULT_TERMS)
    began = time.monotonic()
    await copy.started(copy.spawn(config), copy.spawn(config))
    await until(copy.connection, f"select ({RESCUED}) >= $1", stranded, seconds=60)
    report.figures["stranded"] = report.figures.get("stranded", 0) + stranded
    report.figures["rescued_after_start_s"] = round(time.monotonic() - began, 2)
    await settle_all(copy, report)
    await completed(copy, report)
    rescued = await copy.connection.fetchval(RESCUED)
    report.expect(rescued == stranded, f"{rescued} jobs were rescued, {stranded} were stranded")
    await copy.judge(report)
    twice = report.duplicates
    await account(copy, report)
    report.duplicates = twice  # what the others went on to run was run once there and once here
