"""D.1: kill -9 at every named point, before and after the commit of every statement that a daemon sends."""

import asyncio
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

from tests.heart import until
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.inbox import Inbox, inbox
from tests.stress.jobs import RUNS, lines
from tests.stress.nursery import Nursery, Nursling
from tests.stress.place import COMPRESSED, Place
from tests.stress.place import place as another_place
from tests.stress.points import POINTS, TYPES, Point, Trap
from tests.stress.workload import create_steps

LANES = 8
Table = dict[str, list[int]]  # by point: kills and repeats of a job's effect, before and after
TIMES = 20
MOMENTS = ("before", "after")
STRAY = "insert into worker.kept (job_id, enqueued_by) values (0, current_user)"  # a note of nobody's job
SPRING_SECONDS = 20.0
CORPSE_SECONDS = 2.0
VICTIM = COMPRESSED.replace('grace = "5s"', 'grace = "100ms"').replace("concurrency = 8", "concurrency = 2")
SETUP = """
create table evidence.gate as select true as open;
grant select on evidence.gate to public;
create function step_fails(job_id bigint) returns void language plpgsql as
  $$ begin raise exception 'as it must'; end $$;
create function step_lasts(job_id bigint) returns void language sql as
  $$ select evidence.step(job_id, 'lasts', 0.2) $$;
create function step_gated(job_id bigint) returns void language plpgsql as $$
begin
  perform evidence.step(job_id, 'gated', 0);
  while not (select open from evidence.gate) loop
    perform pg_sleep(0.02);
  end loop;
end $$;
"""
IDLE = "select not exists (select from worker.job_queue where status in ('pending', 'running'))"
ASLEEP = """
    select exists (select from worker.asleep a join worker.process p on p.id = a.process_id
      where p.pid = $1 and p.dead_at is null)
"""
STEP_RUNS = "select exists (select from worker.job_step where job_id = $1 and status = 'running')"
CHILDREN = """
    select count(*) from worker.job_queue j where j.job_type = 'free' and j.status = 'completed'
      and (select count(*) from worker.job_queue c where c.parent_id = j.id) <> 1
"""


@dataclass
class Death:
    """One kill, and the job that it was about."""

    point: Point
    moment: str
    job_id: int | None


class Lane:
    """One victim after the other in a database of their own: each first rescues and ends what the last one left."""

    def __init__(self, place: Place, proxy: FaultProxy, box: Inbox) -> None:
        self._place, self._proxy = place, proxy
        self._config = place.configure(TYPES.replace("{url}", box.url), worker=VICTIM)

    async def work(self, nursery: Nursery, plan: list[tuple[Point, str]], report: Report) -> list[Death]:
        """Deaths from the common plan until it is empty."""
        deaths = []
        while plan:
            point, moment = plan.pop()
            death = None
            try:
                death = await self.die(nursery, point, moment)
            except (TimeoutError, AssertionError) as error:
                failed = f"never died {moment} {point.name}: {type(error).__name__} {error}"
            said = self._place.daemons[-1].said()
            if "lease.fenced" in said:  # on a machine this busy it had other things to do than what leads to the point
                report.figures["fenced"] = report.figures.get("fenced", 0) + 1
                plan.append((point, moment))
            elif death is None:
                report.expect(False, f"{failed}: {said[-600:]}")
            else:
                report.injected += 1
                deaths.append(death)
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
                await until(self._place.connection, IDLE)
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
            await until(self._place.connection, ASLEEP, victim.pid)
        if point.job == "gated":
            await self._gate(open=False)
        if not point.stop:
            trap.arm()
        if point.job is not None:
            job_id = await self._place.connection.fetchval("""select worker.enqueue($1, '{"ms": 1}')""", point.job)
        if point.stop:
            if job_id is not None:
                await until(self._place.connection, STEP_RUNS, job_id)
            trap.arm()
            victim.send(signal.SIGTERM)
        return job_id

    async def _sprung(self, trap: Trap) -> None:
        async with asyncio.timeout(SPRING_SECONDS):
            while not trap.sprung.is_set():
                if trap.point.name in ("declare_dead", "rescue"):
                    await self._corpse()
                elif trap.point.name == "sweep":
                    await self._place.connection.execute(STRAY)
                with suppress(TimeoutError):
                    async with asyncio.timeout(CORPSE_SECONDS):
                        await trap.sprung.wait()

    async def _corpse(self) -> None:
        """Somebody to be declared dead: a process whose session ends without a word."""
        connection = await asyncpg.connect(self._place.dsn)
        me = await connection.fetchval("select worker.register('corpse', 0, '0', '{}', 1, '30 s')")
        await connection.fetchrow("select * from worker.register_backend($1, 'beat')", me)
        connection.terminate()

    async def end(self, nursery: Nursery, report: Report) -> None:
        """One that lives ends what the last one left."""
        await self._place.started(self._born(nursery))
        report.expect(await self._place.settled(30), "not all jobs are final after 30 s")
        await self._place.judge(report)

    async def _gate(self, *, open: bool) -> None:
        await self._place.connection.execute("update evidence.gate set open = $1", open)


@experiment("7-failpoints", nightly=len(POINTS) * len(MOMENTS) * TIMES, limit=900)
async def failpoints(place: Place, report: Report) -> None:
    """kill -9 at every statement of a daemon, before it is committed and after; the outcome is as the table says."""
    times = max(report.planned // (len(POINTS) * len(MOMENTS)), 1)
    plan = [(point, moment) for point in POINTS for moment in MOMENTS for _ in range(times)]
    place.chance.shuffle(plan)
    nursery = Nursery()
    table: Table = {point.name: [0, 0, 0, 0] for point in POINTS}

    async def conduct(number: int) -> int:
        async with another_place(place.server, place.folder, number) as own, faulty(own.dsn) as proxy, inbox() as box:
            await create_steps(own)
            await own.connection.execute(SETUP)
            lane = Lane(own, proxy, box)
            deaths = await lane.work(nursery, plan, report)
            await lane.end(nursery, report)
            await compare(own, report, deaths, table, box)
            return report.jobs

    report.jobs = sum([await one for one in asyncio.as_completed(map(conduct, range(LANES)))])
    report.figures["kills_repeats_before_after"] = table


async def compare(place: Place, report: Report, deaths: list[Death], table: Table, box: Inbox) -> None:
    """What each death came to, against what was expected of its point."""
    ran = Counter(int(line[0]) for line in lines(place.folder, RUNS))
    for death in deaths:
        side = MOMENTS.index(death.moment)
        table[death.point.name][2 * side] += 1
        if death.job_id is None:
            continue
        effects = box.receipts[f"msg_{death.job_id}"] if death.point.job == "hook" else ran[death.job_id]
        again = max(effects - 1, 0)
        table[death.point.name][2 * side + 1] += again
        report.duplicates += again
        about = f"{death.moment} {death.point.name}: job {death.job_id} took effect {again} times more"
        report.expect(again == death.point.again[side], f"{about}, not {death.point.again[side]}")
    childless = await place.connection.fetchval(CHILDREN)
    report.expect(childless == 0, f"{childless} completed jobs have not exactly one follow-up")
    ends = await place.connection.fetch(
        "select job_type, status, finish_reason, count(*) from worker.job_queue"
        " where (status, job_type = 'fails') not in (('completed', false), ('failed', true)) group by 1, 2, 3"
    )
    report.expect(not ends, f"jobs ended otherwise: {[tuple(each) for each in ends]}")
