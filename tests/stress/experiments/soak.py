"""D.9: a day of the daemons' time, compressed, with a fault every five minutes of it."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from tests.heart import until
from tests.processes import Daemon
from tests.stress.checker import violations
from tests.stress.clocks import for_servers, shared
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import ALL, FaultProxy, faulty
from tests.stress.place import Place
from tests.stress.postgres import DUTIES, end_sessions, restarted, server_of_its_own
from tests.stress.witness import Witness, slope
from tests.stress.workload import MIXED, create_steps
from tests.support import server_folder

TIMES = int(os.environ.get("WORKER_SOAK_TIMES", "20"))  # seconds of the daemons' in one of ours
EVERY = 300.0  # seconds of theirs between faults
AN_HOUR = int(3600 / EVERY)  # faults
JOBS_A_SECOND = 30
HOUR = 3600 / TIMES
# In their time ten times the defaults, as in the short experiments in ours: processors do not go faster.
TERMS = """
poll = "5s"
beat = "5s"
fence = "20s"
missing = "30s"
lease = "300s"
grace = "60s"
concurrency = 16
prefetch = 50
keep = { completed = "10m", skipped = "10m", failed = "10m", cancelled = "10m" }
"""
RETRY = 'retry = { first = "1s", max = "10s", max_attempts = 100 }'
JOBS = f"""
[job.brief]
python = "tests.stress.jobs:brief"
{RETRY}
[job.in_line]
python = "tests.stress.jobs:brief"
concurrency_key = "key:{{key}}"
{RETRY}
[job.comes_back]
python = "tests.stress.jobs:comes_back"
{RETRY}
""" + MIXED[MIXED.index("[job.graph]") :]
PRODUCE = """
    select worker.enqueue(case when n % 20 = 0 then 'graph' when n % 20 = 1 then 'comes_back'
      when n % 5 = 2 then 'in_line' else 'brief' end, jsonb_build_object('key', (random() * 60)::int, 'ms', n % 40))
    from generate_series(1, $1::int) n
"""
PRODUCER = "soak-producer"
END_PRODUCER = "select count(pg_terminate_backend(pid)) = 0 from pg_stat_activity where application_name = $1"
WAITING = "select count(*) from worker.job_queue where queued or parked"
# What belongs to jobs that are pruned has been judged.
FORGET = [
    f"delete from evidence.{table} e where not exists (select from worker.job_queue q where q.id = e.job_id)"
    for table in ("hist", "fx", "marks", "event")
]
LIVING = "I13"  # daemons that live have connections
GROWTH_MB = 8.0  # an hour of theirs
TAIL = 60.0  # seconds of ours in which what waits becomes final


@dataclass
class Soak:
    """Three daemons, each behind a network of its own; the first is never killed."""

    place: Place
    doors: list[FaultProxy]
    clock: dict[str, str]
    daemons: list[Daemon] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    witness: Witness = field(default_factory=Witness)

    def start(self, door: FaultProxy) -> Daemon:
        return self.place.spawn(self.place.folder / "worker.toml", door.dsn, more=self.clock)

    @property
    def door(self) -> FaultProxy:
        return self.place.chance.choice(self.doors)

    async def sleep(self, least: float, most: float) -> None:
        """Seconds of theirs."""
        await asyncio.sleep(self.place.chance.uniform(least, most) / TIMES)


async def kill(soak: Soak) -> None:
    number = soak.place.chance.randrange(1, len(soak.daemons))
    soak.daemons[number].kill()
    soak.daemons[number] = soak.start(soak.doors[number])


async def pause(soak: Soak) -> None:
    daemon = soak.place.chance.choice(soak.daemons)
    daemon.send(signal.SIGSTOP)
    await soak.sleep(5, 90)
    daemon.send(signal.SIGCONT)


async def terminate(soak: Soak) -> None:
    await end_sessions(soak.place, soak.place.chance.choice(DUTIES))


ANSWERS = (b"worker.claim(", b"worker.settle(", b"worker.complete(", b"worker.run_step(")


async def cut(soak: Soak) -> None:
    soak.door.cut(soak.place.chance.choice((*DUTIES, ALL)))


async def black_hole(soak: Soak) -> None:
    door, duty = soak.door, soak.place.chance.choice((*DUTIES, ALL))
    door.hold(duty)
    await soak.sleep(5, 90)
    door.release(duty)
    door.cut(duty)


async def lost_answer(soak: Soak) -> None:
    soak.door.lose.append(soak.place.chance.choice(ANSWERS))


async def slow(soak: Soak) -> None:
    door = soak.door
    door.delay = (0.0, 0.02)
    await soak.sleep(20, 60)
    door.delay = (0.0, 0.0)


async def crash(soak: Soak) -> None:
    await restarted(soak.place, "immediate", down=soak.place.chance.uniform(0, 2))


async def migration(soak: Soak) -> None:
    async with soak.place.connection.transaction():
        await soak.place.connection.execute("lock table worker.job_queue in access exclusive mode")
        await soak.sleep(5, 30)


FAULTS: Sequence[Callable[[Soak], Awaitable[None]]] = (
    kill, pause, terminate, cut, black_hole, lost_answer, slow, crash, migration,
)  # fmt: skip


@experiment("87-soak", soak=24 * AN_HOUR, limit=6 * 3600)
async def soak(outer: Place, report: Report) -> None:
    """24 h at WORKER_SOAK_TIMES (20): 30 jobs a second, faults by seed, vacuum on; the checker asks once an hour."""
    async with AsyncExitStack() as ending:
        clock = dict(ending.enter_context(shared(f"+0 x{TIMES}")))
        ending.enter_context(for_servers(clock))
        folder = ending.enter_context(server_folder())
        place = await ending.enter_async_context(server_of_its_own(outer, folder))
        doors = [await ending.enter_async_context(faulty(place.dsn, seed)) for seed in range(3)]
        place.configure(JOBS, TERMS)
        await create_steps(place)
        here = Soak(place, doors, clock)
        for door in doors:
            here.daemons.append(here.start(door))
        await place.started(*here.daemons)
        began, wait = time.monotonic(), 0.0
        while report.injected < report.planned:
            report.injected += await _hour(here, min(AN_HOUR, report.planned - report.injected))
            wait += await _judged(here, report)
        _told(here, report, time.monotonic() - began - wait)
        jobs = await place.connection.fetchval("select max(id) from worker.job_queue")
        report.figures |= {"jobs_in_all": jobs, "jobs_a_second": round(jobs / report.injected / EVERY, 1)}
        await here.witness.tell(place.connection)
        await place.judge(report)


async def _hour(soak: Soak, faults: int) -> int:
    """An hour of theirs, or less at the end."""
    async with _producing(soak):
        for _ in range(faults):
            at = time.monotonic() + EVERY / TIMES
            fault = soak.place.chance.choice(FAULTS)
            await fault(soak)
            soak.faults[fault.__name__] += 1
            soak.witness.look(each.pid for each in soak.daemons)
            await asyncio.sleep(max(at - time.monotonic(), 0))
    return faults


@asynccontextmanager
async def _producing(soak: Soak) -> AsyncIterator[None]:
    """JOBS_A_SECOND of theirs, but never more than wait for ten seconds of ours."""

    async def produce() -> None:
        connection = None
        while True:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                if connection is None or connection.is_closed():
                    name = {"application_name": PRODUCER}
                    connection = await asyncpg.connect(
                        soak.place.dsn, timeout=5, command_timeout=10, server_settings=name
                    )
                if await connection.fetchval(WAITING) < 10 * JOBS_A_SECOND * TIMES:
                    await connection.execute(PRODUCE, max(JOBS_A_SECOND * TIMES // 10, 1))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(produce())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # What it was told last may commit late, and its jobs would be open when the checker looks.
        await until(soak.place.connection, END_PRODUCER, PRODUCER)


async def _judged(soak: Soak, report: Report) -> float:
    """Everything that was enqueued is final; what the checker says of it, and how big the tables are."""
    began, place = time.monotonic(), soak.place
    report.expect(await place.settled(TAIL), f"fault {report.injected}: jobs are not final after {TAIL:g} s")
    for violation in await violations(place.connection, LIVING):
        report.faults.append(f"fault {report.injected}: {violation}")
    for forget in FORGET:
        await place.connection.execute(forget)
    await soak.witness.measure(place.connection)
    return time.monotonic() - began


def _told(soak: Soak, report: Report, seconds: float) -> None:
    """The curves; none of them may rise."""
    first = soak.daemons[0].pid
    lives = soak.daemons[0] in soak.place.alive()
    report.expect(lives, f"the daemon whose curves these are has ended: {soak.daemons[0].said()[-300:]}")
    hours = report.injected / AN_HOUR
    report.figures |= {"daemon_hours": round(hours, 1), "times": TIMES, "seconds": round(seconds), **soak.faults}
    for what in ("rss_mb", "files", "threads"):
        readings = soak.witness.readings[first, what]
        report.figures[what] = [round(value, 1) for _, value in readings[:: max(len(readings) // 24, 1)]]
        an_hour = slope(readings) * HOUR
        report.figures[f"{what}_an_hour"] = round(an_hour, 2)
        report.expect(an_hour < (1.0 if hours >= 3 else 10.0), f"{what} grows by {an_hour:.1f} an hour")
    for table, sizes in soak.witness.sizes.items():
        if max(size for _, size in sizes) >= 1:
            report.figures[f"{table}_mb"] = [round(size, 1) for _, size in sizes]
        an_hour = slope(sizes[1:]) * HOUR
        report.expect(an_hour < GROWTH_MB, f"{table} grows by {an_hour:.1f} MB an hour")
