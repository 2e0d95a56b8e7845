"""What experiments do to a Postgres server and its sessions, and what they expect of daemons that live through it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.stress.experiment import Report
from tests.stress.place import Place
from tests.stress.place import place as another_place
from worker.embedded import start
from worker.embedded.binaries import account, run

# What a connection of ours may end with while its server is in trouble; the internal one comes in mid-message.
TROUBLE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
DUTIES = ("control", "step", "beat", "listen")
# The lease as it is by default: what is promised about outages and false rescues is promised of these.
DEFAULT_TERMS = 'poll = "500ms"\ngrace = "5s"\nconcurrency = 8\nprefetch = 8\n'
SESSIONS = """
    select pid from pg_stat_activity
    where datname = current_database() and application_name ~ ('^worker ' || $1) and backend_type = 'client backend'
    order by state = 'active' desc, state_change desc
"""
TERMINATE = SESSIONS.replace("select pid", "select pg_terminate_backend(pid)")
CANCEL = SESSIONS.replace("select pid", "select pg_cancel_backend(pid)")
# Of daemons that all live, nobody may have been declared dead, and no job may have been taken from one.
FALSE_RESCUES = """
    select (select count(*) from worker.job_event where event = 'rescue')
         + (select count(*) from worker.process where dead_by <> id)
"""
# What `stocked` enqueues: coroutines of 5 ms; the types are those of workload.py.
FREE_JOBS = """select worker.enqueue('free', '{"ms": 5}') from generate_series(1, 40)"""
GRAPH_JOBS = "select worker.enqueue('graph') from generate_series(1, 20)"
KEYED_JOBS = """
    select worker.enqueue('keyed', jsonb_build_object('key', (random() * 30)::int::text, 'ms', 5))
    from generate_series(1, 20)
"""
COMPLETED_SINCE = "select count(*) from evidence.hist where new_status = 'completed' and at > $1"


async def sessions(place: Place, duty: str = "") -> list[int]:
    """Pids of the daemons' backends, the busy ones and the last used first."""
    return [row["pid"] for row in await place.connection.fetch(SESSIONS, duty)]


async def end_sessions(place: Place, duty: str = "") -> int:
    """pg_terminate_backend for the daemons' sessions of a duty; answers with how many there were."""
    return len(await place.connection.fetch(TERMINATE, duty))


def processes(server_pid: int) -> list[int]:
    """The postmaster and all its children (Linux)."""
    children = []
    for each in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if int((each / "stat").read_text().rpartition(")")[2].split()[1]) == server_pid:
                children.append(int(each.name))
    return [server_pid, *children]


@contextmanager
def frozen(pids: Iterable[int]) -> Iterator[None]:
    """SIGSTOP, and SIGCONT however it ends."""
    stopped = list(pids)
    try:
        for pid in stopped:
            with suppress(ProcessLookupError):  # a child of the server may have come and gone
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def stocked(place: Place, count: int, *statements: str) -> AsyncIterator[None]:
    """Keep about `count` jobs waiting, enqueued by `statements` from a connection that comes back after each outage."""
    waiting = "select count(*) < $1 from worker.job_queue where status = 'pending'"

    async def stock() -> None:
        connection = None
        while True:
            with suppress(*TROUBLE):
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(place.dsn, timeout=5, command_timeout=5)
                if await connection.fetchval(waiting, count):
                    for statement in statements:
                        await connection.execute(statement)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(stock())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def flowing(place: Place, seconds: float = 30.0) -> float:
    """Wait until a job is completed that was not before; answers with how long that took."""
    began = time.monotonic()
    since = await place.connection.fetchval("select clock_timestamp()")
    async with asyncio.timeout(seconds):
        while not await place.connection.fetchval(COMPLETED_SINCE, since):
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def longest_gap(place: Place, since: object) -> float:
    """The longest time since then in which no job was completed."""
    return await place.connection.fetchval(
        "select coalesce(max(extract(epoch from at - before)), 0)::float8 from ("
        "  select at, lag(at, 1, $1) over (order by at) as before"
        "  from evidence.hist where new_status = 'completed' and at > $1) gaps",
        since,
    )


async def unharmed(place: Place, report: Report, attempts: int = 1, ailing: str = "nothing") -> None:
    """Expect that all jobs completed, that none needed more attempts than that, and that nobody was called dead.

    Args:
        ailing: an error with this in its text was the job's own, so that its attempt counts.
    """
    rescues = await place.connection.fetchval(FALSE_RESCUES)
    report.figures["false_rescues"] = rescues
    report.expect(rescues == 0, f"{rescues} rescues or deaths, and no daemon had died")
    await completed(place, report)
    sound = "from worker.job_queue where coalesce(strpos(errors::text, $1), 0) = 0"
    most = await place.connection.fetchval(f"select max(attempt) {sound}", ailing)
    report.figures["most_attempts"] = most
    again = await place.connection.fetch(
        f"select id, job_type, attempt, errors::text {sound} and attempt > $2 limit 3", ailing, attempts
    )
    report.expect(most <= attempts, f"jobs that nothing ailed were tried again: {[tuple(each) for each in again]}")


async def completed(place: Place, report: Report) -> None:
    """Expect that every job completed."""
    others = await place.connection.fetch(
        "select id, job_type, status, finish_reason, attempt, rescues, errors::text from worker.job_queue"
        " where status <> 'completed' order by id"
    )
    report.expect(not others, f"{len(others)} jobs did not complete, such as {[tuple(each) for each in others[:3]]}")


async def settle_all(place: Place, report: Report, seconds: float = 60.0) -> None:
    """Expect that every job becomes final."""
    if not await place.settled(seconds):
        left = await place.connection.fetch(
            "select status, count(*) from worker.job_queue where status in ('pending', 'running') group by 1"
        )
        report.expect(False, f"after {seconds:g} s there are still {[tuple(each) for each in left]}")


@asynccontextmanager
async def server_of_its_own(
    outer: Place, data: Path, *, prefix: Path | None = None, **settings: str
) -> AsyncIterator[Place]:
    """A place on one more server, whose folder, binaries or settings the experiment chooses; gone afterwards."""
    server = await asyncio.to_thread(start, data, settings=settings, die_with_parent=True, prefix=prefix)
    try:
        async with another_place(server, outer.folder, outer.chance.randrange(1_000_000)) as there:
            yield there
    finally:
        await asyncio.to_thread(server.stop, "immediate")


def program(place: Place, name: str, *arguments: str) -> str:
    """Run one of Postgres' own programs, as the user that the server runs as."""
    return run([str(place.server.prefix / "bin" / name), *arguments], account())


async def restarted(place: Place, mode: str = "immediate", down: float = 0.0) -> None:
    """Stop the server, leave it down for so long, start it, and wait until it lets us in."""
    await asyncio.to_thread(place.server.stop, mode)
    await asyncio.sleep(down)
    await asyncio.to_thread(place.server.restart, mode)
    await place.reconnect()


def errors_said(place: Place) -> dict[str, int]:
    """How often the daemons said each of the lines that tell of trouble."""
    lines = ("claim.failed", "duty.failed", "lease.beat_missed", "lease.fenced", "listener.lost", "settle.kept",
             "service.start_again", "service.declared_dead", "step.stop_failed")  # fmt: skip
    return {line: count for line in lines if (count := place.count_said(f'"{line}"'))}


async def daemon_role(place: Place, password: str | None = None) -> str:
    """A login as docs/security.md wants it for the daemon; answers with the address for it, which has no password."""
    await place.connection.execute("create role daemon login in role worker_run")
    if password is not None:
        await place.connection.execute(f"alter role daemon password '{password}'")
    url = urlsplit(place.dsn)
    return f"postgresql://{url.path}?user=daemon&{url.query}"


async def evidence_off(place: Place) -> None:
    """For experiments that measure: the triggers that write down every change cost more than what is measured."""
    for name in ("birth", "change"):
        await place.connection.execute(f"alter table worker.job_queue disable trigger evidence_of_{name}")


def few_attempts(jobs: str) -> str:
    """The same job types with the default number of attempts: whatever counts one against a healthy job shows."""
    assert "max_attempts = 100" in jobs
    return jobs.replace(", max_attempts = 100", "")
