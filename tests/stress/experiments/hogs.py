"""D.6: handlers that keep the interpreter to themselves, and handlers that leak."""

import resource
from contextlib import suppress
from pathlib import Path

from tests.heart import until
from tests.stress.experiment import Missing, Report, experiment
from tests.stress.jobs import lines
from tests.stress.misbehaviour import HOGS
from tests.stress.place import COMPRESSED, Place
from tests.stress.workload import FREE, produce_free

LEASE_SECONDS = 3.0  # of COMPRESSED
SETTLE_SECONDS = 90.0
HOG = """
[job.hog]
python = "tests.stress.misbehaviour:hog"
timeout = "60s"
settings = { folder = "{folder}" }
retry = { first = "10ms", max = "10ms", max_attempts = 4 }
"""
LEAK = """
[job.leak]
python = "tests.stress.misbehaviour:leak"
retry = { max_attempts = 1 }
"""


@experiment("54-interpreter-hog", nightly=2, limit=300)
async def interpreter_hog(place: Place, report: Report) -> None:
    """One call in C, twice the lease: no thread beats. Another takes over, and what the hog writes is refused."""
    config = place.configure(HOG + FREE)
    await place.started(place.spawn(config), place.spawn(config))
    for number in range(report.planned):
        how = ("pattern", "number")[number % 2]
        job = await place.connection.fetchval(
            "select worker.enqueue('hog', jsonb_build_object('how', $1::text, 'seconds', $2::float8))",
            how, 2 * LEASE_SECONDS,
        )  # fmt: skip
        await produce_free(place, 20)
        await until(
            place.connection, "select finished_at is not null from worker.job_queue where id = $1", job, seconds=60
        )
        # The hog is back, and is told or has told itself that it was taken for dead.
        await until(
            place.connection, "select count(*) = 2 from worker.process where dead_at is null and lease_until > now()",
            seconds=40,
        )  # fmt: skip
        report.injected += 1
    await produce_free(place, 20)
    report.expect(await place.settled(SETTLE_SECONDS), "jobs are not final")
    _account(place, report)
    await place.judge(report)


def _account(place: Place, report: Report) -> None:
    noted = {(int(job), int(attempt), what): float(at) for job, attempt, what, at in lines(place.folder, HOGS)}
    twice = {job for job, attempt, what in noted if attempt > 1 and what == "begin"}
    report.duplicates = len(twice)
    overlaps = [noted[job, 1, "end"] - noted[job, 2, "begin"] for job in twice if (job, 1, "end") in noted]
    report.figures["overlap_s"] = [round(seconds, 1) for seconds in overlaps]
    report.expect(len(twice) > 0, "no hog was taken over: the experiment showed nothing")
    named = sum(
        '"loop.blocked"' in line and '"hog"' in line for each in place.daemons for line in each.said().splitlines()
    )
    report.figures["named_in_the_log"] = named
    report.expect(named >= report.planned, f"{named} of {report.planned} hogs are named in the log")
    report.figures["declared_dead"] = place.count_said('"service.declared_dead"')


class Held:
    """What a process holds (Linux)."""

    def __init__(self, pid: int) -> None:
        proc = Path(f"/proc/{pid}")
        if not proc.exists():
            raise Missing("/proc, which says what a process holds")
        status = (proc / "status").read_text()
        self.threads = int(status.split("Threads:")[1].split()[0])
        self.memory = int(status.split("VmRSS:")[1].split()[0]) / 1024
        self.files = len(list((proc / "fd").iterdir()))

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.files} files, {self.memory:.0f} MB"


@experiment("59-leaks", nightly=4, limit=300)
async def leaks(place: Place, report: Report) -> None:
    """20,000 sound jobs leave nothing behind; what a handler leaks stays, for no cap would end the daemon.

    At the limit of open files its own jobs fail, and those that need no new file go on.
    """
    worker = COMPRESSED.replace("concurrency = 8", "concurrency = 20").replace("prefetch = 8", "prefetch = 100")
    daemon = place.spawn(place.configure(LEAK + FREE, worker=worker))
    await place.started(daemon)
    await _sound(place, report, 2_000)
    before = Held(daemon.pid)
    await _sound(place, report, 18_000)
    after = Held(daemon.pid)
    report.figures["sound"] = f"{before} -> {after}"
    report.expect(after.threads <= before.threads + 4, f"threads: {before.threads} -> {after.threads}")
    report.expect(after.files <= before.files + 4, f"open files: {before.files} -> {after.files}")
    report.expect(after.memory <= before.memory * 1.1 + 5, f"memory: {before.memory:.0f} -> {after.memory:.0f} MB")
    report.injected += 1
    for what, count in (("thread", 300), ("memory", 1_000), ("file", 300)):
        before = Held(daemon.pid)
        await _leak(place, report, what, count)
        report.figures[what] = f"{count} leaked: {before} -> {Held(daemon.pid)}"
        report.injected += 1
    await _to_the_limit(place, report, daemon.pid)
    await place.judge(report)


async def _sound(place: Place, report: Report, count: int) -> None:
    await produce_free(place, count, 0)
    report.expect(await place.settled(SETTLE_SECONDS), f"{count} jobs are not final")


async def _leak(place: Place, report: Report, what: str, count: int) -> None:
    await place.connection.execute(
        "select worker.enqueue('leak', jsonb_build_object('what', $1::text)) from generate_series(1, $2)", what, count
    )
    report.expect(await place.settled(SETTLE_SECONDS), f"{count} that leak a {what} are not final")


async def _to_the_limit(place: Place, report: Report, pid: int) -> None:
    """The process may open 50 files more, and 100 jobs want one each to keep."""
    limit = Held(pid).files + 50
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
    await _leak(place, report, "file", 100)
    failed = await place.connection.fetchval("select count(*) from worker.job_queue where status = 'failed'")
    report.figures["failed_at_the_limit"] = failed
    report.expect(failed >= 45, f"only {failed} failed at the limit of open files")
    await _leak(place, report, "memory", 100)
    still = await place.connection.fetchval("select count(*) from worker.job_queue where status = 'failed'")
    report.expect(still == failed, f"{still - failed} jobs that need no file failed at the limit")
