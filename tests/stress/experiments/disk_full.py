"""D.2: the server's disk is full: first nothing can grow, then the server panics; then there is room again."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg

from tests.heart import becomes
from tests.stress.experiment import Missing, Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    FREE_JOBS,
    GRAPH_JOBS,
    TROUBLE,
    errors_said,
    few_attempts,
    flowing,
    server_of_its_own,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.workload import FREE, MIXED, account, create_steps
from tests.support import server_folder
from worker.embedded.binaries import account as server_account
from worker.embedded.postmaster import alive

DISK_MB = 300
SPARE = 4 << 20  # bytes left free at first, for the hog
MOST_CPU = 0.25
MOST_GROWTH = 1.1
FULL_SECONDS = 4.0
PANIC_SECONDS = 30.0
# What follows a job is written with its verdict: none may be lost, none may come twice.
PARENTS = (
    FREE.replace("[job.free]", "[job.parent]")
    + """
then = ["child"]
[job.child]
arguments = { job_id = "id" }
steps = { a = { sql = "step_a" } }
"""
)
PARENT_JOBS = """select worker.enqueue('parent', '{"ms": 5}') from generate_series(1, 10)"""
FOLLOWED_WRONGLY = """
    select count(*) from worker.job_queue p where p.job_type = 'parent' and p.status = 'completed'
      and (select count(*) from worker.job_queue c where c.parent_id = p.id) <> 1
"""
HOG = "insert into hog select repeat('x', 2000) from generate_series(1, 200)"


@experiment("17-disk-full", nightly=2)
async def disk_full(outer: Place, report: Report) -> None:
    """A small tmpfs fills up: data cannot grow, then the log cannot (PANIC); freed, and the server started again."""
    settings = {"max_wal_size": "96MB", "min_wal_size": "80MB", "restart_after_crash": "off"}
    with server_folder() as folder, _small_disk(folder):
        async with server_of_its_own(outer, folder, **settings) as place:
            await create_steps(place)
            await place.connection.execute("create table hog (x text)")
            config = place.configure(few_attempts(MIXED + PARENTS), DEFAULT_TERMS)
            await place.started(place.spawn(config), place.spawn(config))
            async with stocked(place, 80, FREE_JOBS, GRAPH_JOBS, PARENT_JOBS):
                await flowing(place)
                await _log_ahead(place)
                filler = folder / "filler"
                filler.write_bytes(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - SPARE))
                await _no_room(place, report)
                await _panics(place, report)
                await _while_down(place, report)
                filler.unlink()
                await asyncio.to_thread(place.server.restart, "immediate")
                await place.reconnect()
                report.figures["to_first_job_s"] = round(await flowing(place), 2)
            await _judged(place, report)


async def _log_ahead(place: Place) -> None:
    """Some segments of the log are there already, so that data is the first that cannot grow."""
    for _ in range(5):
        await place.connection.execute("insert into hog values ('x')")
        await place.connection.execute("select pg_switch_wal()")
    await place.connection.execute("checkpoint")


async def _no_room(place: Place, report: Report) -> None:
    """Data cannot grow any more; for some seconds the daemons live with that."""
    with suppress(asyncpg.DiskFullError):
        for _ in range(1000):
            await place.connection.execute(HOG)
    await asyncio.sleep(FULL_SECONDS)
    log = (place.server.data / "server.log").read_text(errors="replace")
    report.figures["refused_for_space"] = log.count("ERROR:  could not extend file")
    report.injected += report.figures["refused_for_space"] > 0


async def _panics(place: Place, report: Report) -> None:
    """The log needs a new segment and gets none: the server is gone."""
    postmaster = place.server.pid
    with suppress(*TROUBLE):
        for _ in range(100):
            await place.connection.execute("insert into hog values ('x')")
            await place.connection.execute("select pg_switch_wal()")
    await becomes(lambda: not alive(postmaster), PANIC_SECONDS)
    report.injected += 1  # its own log had no room for the word PANIC


async def _while_down(place: Place, report: Report) -> None:
    """No tight loop, nothing that grows."""
    before, used, began = max(sum(place.memory().values()), 1.0), _cpu_seconds(place), time.monotonic()
    await asyncio.sleep(FULL_SECONDS)
    share = (_cpu_seconds(place) - used) / (time.monotonic() - began) / len(place.daemons)
    grown = sum(place.memory().values()) / before
    report.figures |= {"core_share_while_down": round(share, 3), "memory_while_down": round(grown, 2)}
    report.expect(share <= MOST_CPU, f"a daemon takes {share:.2f} of a core while the server is down")
    report.expect(grown <= MOST_GROWTH, f"memory grows {grown:.2f}-fold in {FULL_SECONDS:g} s while the server is down")


def _cpu_seconds(place: Place) -> float:
    fields = [Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split() for each in place.daemons]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


async def _judged(place: Place, report: Report) -> None:
    await settle_all(place, report)
    await unharmed(place, report, ailing="53100")  # a step's own rows had no room either: by chance, one in some runs
    wrong = await place.connection.fetchval(FOLLOWED_WRONGLY)
    report.expect(wrong == 0, f"{wrong} completed jobs are not followed by exactly one")
    report.figures |= errors_said(place)
    await place.judge(report)
    await account(place, report)


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        raise Missing("mounting a tmpfs needs root")
    folder.mkdir()
    user = server_account()
    size = f"size={DISK_MB}m,uid={user.uid},gid={user.gid},mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise Missing(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
