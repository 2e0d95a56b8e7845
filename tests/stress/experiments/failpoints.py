"""D.1: kill -9 at every named point, before and after the commit of every statement that a daemon sends."""

import asyncio
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.heart import until, write_config
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.inbox import Inbox, inbox
from tests.stress.jobs import RUNS, lines
from tests.stress.nursery import Nursery, Nursling
from tests.stress.place import COMPRESSED, Place
from tests.stress.points import POINTS, TYPES, Point, Trap
from tests.stress.workload import RETRY, create_steps

LANES = 5
TIMES = 20
MOMENTS = ("before", "after")
SPRING_SECONDS = 20.0
CORPSE_SECONDS = 2.0
VICTIM = COMPRESSED.replace('grace = "5s"', 'grace = "100ms"').replace("concurrency = 8", "concurrency = 2")
SETUP = """
create table evidence.gate (lane integer primary key, open boolean not null default true);
grant select on evidence.gate to public;
create function step_fails(job_id bigint) returns void language plpgsql as
  $$ begin raise exception 'as it must'; end $$;
create function step_gated(job_id bigint, lane integer) returns void language plpgsql as $$
begin
  perform evidence.step(job_id, 'gated', 0);
  while not (select open from evidence.gate g where g.lane = step_gated.lane) loop
    perform pg_sleep(0.02);
  end loop;
end $$;
"""
IDLE = """
    select not exists (select from worker.job_queue
      where status in ('pending', 'running') and right(job_type, 1) = $1::int::text)
"""
ASLEEP = """
    select exists (select from worker.asleep a join worker.process p on p.id = a.process_id
      where p.pid = $1 and p.dead_at is null)
"""
STEP_RUNS = "select exists (select from worker.job_step where job_id = $1 and status = 'running')"
CHILDREN = """
    select count(*) from worker.job_queue j where j.job_type ~ '^free' and j.status = 'completed'
      and (select count(*) from worker.job_queue c where c.parent_id = j.id) <> 1
"""


@dataclass
class Death:
    """One kill, and the job that it was about."""

    point: Point
    moment: str
    job_id: int | None


class Lane:
    """One victim after the other, with job types of their own: each first ends what the last one left."""

    def __init__(self, number: int, place: Place, connection: asyncpg.Connection, proxy: FaultProxy) -> None:
        self._number, self._place, self._connection, self._proxy = number, place, connection, proxy
        self._config: Path

    def configure(self, box: Inbox) -> str:
        """The job types of this lane."""
        folder = self._place.folder / f"lane{self._number}"
        folder.mkdir()
        types = TYPES.format(lane=self._number, folder=self._place.folder, url=box.url, retry=RETRY)
        self._config = write_config(folder, types, worker=VICTIM)
        return types

    async def work(self, nursery: Nursery, plan: list[tuple[Point, str]], report: Report) -> list[Death]:
        """Deaths from the common plan until it is empty."""
        deaths = []
        while plan:
            point, moment = plan.pop()
            try:
                deaths.append(await self.die(nursery, point, moment))
                report.injected += 1
            except (TimeoutError, AssertionError) as error:
                report.expect(False, f"never died {moment} {point.name}: {type(error).__name__} {error}")
        return deaths

    async def die(self, nursery: Nursery, point: Point, moment: str) -> Death:
        """A victim, up to its death."""
        trap = Trap(self._proxy, point, moment)
        if point.early:
            trap.arm()
        victim = trap.victim = self._born(nursery)
        job_id = None
        try:
            if not point.early:
                await self._place.started(victim)
                await until(self._connection, IDLE, self._number)
                job_id = await self._come_to(point, trap, victim)
            await self._sprung(trap)
        finally:
            victim.kill()
            self._proxy.cut()
            trap.disarm()
            await self._gate(open=True)
        return Death(point, moment, job_id)

    def _born(self, nursery: Nursery) -> Nursling:
        log = self._place.folder / f"daemon-{len(self._place.daemons)}.log"
        born = nursery.spawn(self._config, self._proxy.dsn, log)
        self._place.daemons.append(born)
        return born

    async def _come_to(self, point: Point, trap: Trap, victim: Nursling) -> int | None:
        """Let the daemon do what leads to the point; answers with the job that it is about."""
        job_id = None
        if point.name == "wake":
            await until(self._connection, ASLEEP, victim.pid)
        if point.job == "gated":
            await self._gate(open=False)
        if not point.stop:
            trap.arm()
        if point.job is not None:
            payload = f'{{"ms": 1, "lane": {self._number}}}'
            job_id = await self._connection.fetchval(
                "select worker.enqueue($1, $2::jsonb)", f"{point.job}{self._number}", payload
            )
        if point.stop:
            if job_id is not None:
                await until(self._connection, STEP_RUNS, job_id)
            trap.arm()
            victim.send(signal.SIGTERM)
        return job_id

    async def _sprung(self, trap: Trap) -> None:
        async with asyncio.timeout(SPRING_SECONDS):
            while not trap.sprung.is_set():
                if trap.point.name == "declare_dead":
                    await self._corpse()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CORPSE_SECONDS):
                        await trap.sprung.wait()
        self._place.killed.append((trap.victim.pid, time.time()))

    async def _corpse(self) -> None:
        """Somebody to be declared dead: a process whose session ends without a word."""
        connection = await asyncpg.connect(self._place.dsn)
        me = await connection.fetchval("select worker.register('corpse', 0, '0', '{}', 1, '30 s')")
        await connection.fetchrow("select * from worker.register_backend($1, 'beat')", me)
        connection.terminate()

    async def _gate(self, *, open: bool) -> None:
        await self._connection.execute(
            "insert into evidence.gate values ($1, $2) on conflict (lane) do update set open = $2", self._number, open
        )


@experiment("7-failpoints", nightly=len(POINTS) * len(MOMENTS) * TIMES, limit=900)
async def failpoints(place: Place, report: Report) -> None:
    """kill -9 at every statement of a daemon, before it is committed and after; the outcome is as the table says."""
    times = max(report.planned // (len(POINTS) * len(MOMENTS)), 1)
    plan = [(point, moment) for point in POINTS for moment in MOMENTS for _ in range(times)]
    place.chance.shuffle(plan)
    await create_steps(place)
    await place.connection.execute(SETUP)
    async with AsyncExitStack() as stack:
        box = await stack.enter_async_context(inbox())
        lanes = [await lane_of(number, place, stack) for number in range(LANES)]
        types = "".join(lane.configure(box) for lane in lanes)
        nursery = Nursery()
        deaths = await asyncio.gather(*[lane.work(nursery, plan, report) for lane in lanes])
        await place.started(place.spawn(place.configure(types)))  # ends what the last ones left
        report.expect(await place.settled(60), "not all jobs are final after 60 s")
        await place.judge(report)
    await compare(place, report, [death for lane in deaths for death in lane], box)


async def lane_of(number: int, place: Place, stack: AsyncExitStack) -> Lane:
    """A lane with its own connection and its own way for the daemons."""
    connection = await asyncpg.connect(place.dsn)
    stack.push_async_callback(connection.close, timeout=5)
    return Lane(number, place, connection, await stack.enter_async_context(faulty(place.dsn)))


async def compare(place: Place, report: Report, deaths: list[Death], box: Inbox) -> None:
    """What each death came to, against what was expected of its point."""
    ran = Counter(int(line[0]) for line in lines(place.folder, RUNS))
    table: dict[str, dict[str, list[int]]] = {}
    for death in deaths:
        kills_again = table.setdefault(death.point.name, {}).setdefault(death.moment, [0, 0])
        kills_again[0] += 1
        if death.job_id is None:
            continue
        effects = box.receipts[f"msg_{death.job_id}"] if death.point.job == "hook" else ran[death.job_id]
        again = max(effects - 1, 0)
        kills_again[1] += again
        report.duplicates += again
        expected = death.point.again[MOMENTS.index(death.moment)]
        about = f"{death.moment} {death.point.name}: job {death.job_id} took effect {again} times more"
        report.expect(again == expected, f"{about}, not {expected}")
    report.figures["kills_and_repeats"] = table
    childless = await place.connection.fetchval(CHILDREN)
    report.expect(childless == 0, f"{childless} completed jobs have not exactly one follow-up")
    ends = await place.connection.fetch(
        "select job_type, status, finish_reason, count(*) from worker.job_queue"
        " where (status, job_type ~ '^fails') not in (('completed', false), ('failed', true)) group by 1, 2, 3"
    )
    report.expect(not ends, f"jobs ended otherwise: {[tuple(each) for each in ends]}")
