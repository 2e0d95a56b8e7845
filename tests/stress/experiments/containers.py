"""D.1: the daemon as process 1."""

import os
import signal
import time
from pathlib import Path

from tests.heart import becomes
from tests.stress.container import Contained, contained, descendants, needs_namespaces, state
from tests.stress.experiment import Report, experiment
from tests.stress.place import COMPRESSED, Place
from tests.stress.stage import QUICK

GRACE = 0.5
ORPHANS = 4
TYPES = """
[job.free]
python = "tests.stress.jobs:free"
settings = { folder = "{folder}" }
[job.orphans]
python = "tests.stress.rude_jobs:orphans"
retry = { max_attempts = 1 }
[job.quits]
python = "tests.stress.deadly_jobs:quits"
settings = { folder = "{folder}" }
retry = { max_attempts = 1 }
"""
STATUS = "select status, attempt from worker.job_queue where id = $1"


@experiment("8-process-one", fast=6, quiet=True)
async def process_one(place: Place, report: Report) -> None:
    """As PID 1: SIGTERM and SIGINT are heard at any time, orphans are reaped, the exit code is the daemon's."""
    needs_namespaces()
    config = place.configure(TYPES, worker=COMPRESSED.replace('grace = "5s"', f'grace = "{GRACE * 1000:g}ms"'))
    early = contained(place, config)
    await early.begun()
    await becomes(lambda: descendants(early.first))
    await ends(report, early, signal.SIGTERM, {0, 128 + signal.SIGTERM})  # it may not even have been imported
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon = await claiming(place, config)
        job_id = await running(place)
        await ends(report, daemon, number, {0})
        found = tuple(await place.connection.fetchrow(STATUS, job_id))
        report.expect(found == ("pending", 0), f"after signal {number}, its job is {found}")
        await place.connection.execute("select worker.cancel($1)", job_id)
    daemon = await claiming(place, config)
    await bereaved(place, report, daemon)
    await place.connection.execute("select worker.enqueue('quits')")
    await ends(report, daemon, 0, {3})
    daemon = await claiming(place, config)
    job_id = await running(place)
    (below,) = descendants(daemon.first)
    os.kill(below, signal.SIGKILL)
    await ends(report, daemon, 0, {128 + signal.SIGKILL})
    await place.connection.execute("select worker.cancel($1)", job_id)
    await place.started(place.spawn(config))
    report.expect(await place.settled(20), "not all jobs are final")
    await place.judge(report)


async def claiming(place: Place, config: Path) -> Contained:
    """A daemon in a namespace, ready."""
    daemon = contained(place, config)
    await daemon.begun()
    await place.started(daemon)
    return daemon


async def running(place: Place) -> int:
    """A long job that has begun."""
    job_id = await place.connection.fetchval("""select worker.enqueue('free', '{"ms": 60000}')""")
    await becomes((place.folder / f"job-{job_id}").exists)
    return job_id


async def ends(report: Report, daemon: Contained, number: int, codes: set[int]) -> None:
    """A signal to process 1, or 0 for none, and its end in time with one of these codes."""
    daemon.send(number)
    report.injected += 1
    began = time.monotonic()
    code = await daemon.ended(20)
    seconds = time.monotonic() - began
    report.figures.setdefault("exits", []).append([number, code, round(seconds, 2)])
    in_time = seconds <= (GRACE + QUICK) * report.slack
    report.expect(code in codes and in_time, f"after signal {number}: {code} in {seconds:.1f} s")


async def bereaved(place: Place, report: Report, daemon: Contained) -> None:
    """Orphans of a handler die, and none of the dead is left; the handler hears of its own children's ends."""
    job_id = await place.connection.fetchval("select worker.enqueue('orphans')")
    began, seen = time.monotonic(), set(descendants(daemon.first))
    while time.monotonic() < began + 20 and (await place.connection.fetchval(STATUS, job_id)) in ("pending", "running"):
        seen.update(descendants(daemon.first))
    errors = await place.connection.fetchval("select errors from worker.job_queue where id = $1", job_id)
    report.expect(errors is None, f"a handler's own child: {errors}")
    report.expect(len(seen) > ORPHANS, f"only {len(seen)} processes were seen: the experiment showed nothing")
    await becomes(lambda: all(state(pid) in ("Z", "") for pid in seen - set(descendants(daemon.first)[:1])), 10)
    zombies = [pid for pid in descendants(daemon.first) if state(pid) == "Z"]
    report.expect(not zombies, f"{len(zombies)} zombies")
    report.injected += 1
    report.figures["orphans"] = len(seen) - 1
