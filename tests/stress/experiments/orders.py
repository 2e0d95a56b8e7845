"""D.4: jobs due within a millisecond of each other, and transactions that commit in another order than they insert."""

import asyncio
import time

import asyncpg

from tests.stress.experiment import Report, experiment
from tests.stress.jobs import RUNS, lines
from tests.stress.place import COMPRESSED, Place
from tests.stress.telling import percentile
from tests.stress.workload import FREE, account

AROUND_NOW = """
    select worker.enqueue('free', '{"ms": 0}',
      scheduled_at => clock_timestamp() + make_interval(secs => $2::float8 + random() * 0.002 - 0.001))
    from generate_series(1, $1::int)
"""
EQUAL = """
    select worker.enqueue('free', '{"ms": 0}', scheduled_at => date_trunc('second', now()) + interval '2 s')
    from generate_series(1, $1::int)
"""
FAR = "select worker.enqueue('free', scheduled_at => '8999-12-31 23:59:59+00') from generate_series(1, 100)"
# Jobs that became due at one instant, by the calls that claimed them: those of one process rise from call to call.
OUT_OF_ORDER = """
    with called as (
      select scheduled_at, process, xid, min(job_id) as first, max(job_id) as last, min(n) as n from evidence.hist
      where old_status = 'pending' and new_status = 'running' group by 1, 2, 3
    ), pairs as (
      select scheduled_at, first, lag(last) over (partition by scheduled_at, process order by n) as before from called
    )
    select * from pairs where first < before limit 20
"""
LATE = """
    select extract(epoch from s.at - greatest(i.at, s.scheduled_at))::float8 from evidence.hist s
    join evidence.hist i on i.job_id = s.job_id and i.op = 'INSERT'
    where s.old_status = 'pending' and s.new_status = 'running'
"""
FAR_AND_FREE = "select count(*) = 100 from worker.job_queue where status = 'pending'"
STARTED = """
    select job_id, extract(epoch from at)::float8 from evidence.hist
    where old_status = 'pending' and new_status = 'running'
"""
AT_ONCE = 50
ROLLED_BACK = 0.3  # of the transactions
WAKE_SECONDS = 1.0  # poll + 0.5 s


@experiment("41-due-within-a-millisecond", nightly=10_000)
async def due_within_a_millisecond(place: Place, report: Report) -> None:
    """Due now, a millisecond before and after, many at one instant, some in the year 8999."""
    config = place.configure(FREE, COMPRESSED.replace("prefetch = 8", "prefetch = 50"))
    await place.started(place.spawn(config), place.spawn(config))
    await place.connection.execute(FAR)
    share = report.planned // 20
    for _ in range(5):
        await place.connection.execute(EQUAL, share)
        for ahead in (0.0, 0.3, 1.0):
            await place.connection.execute(AROUND_NOW, share, ahead)
        report.injected += 4 * share
    async with asyncio.timeout(90):
        while not await place.connection.fetchval(FAR_AND_FREE):
            await asyncio.sleep(0.05)
    late = [row[0] for row in await place.connection.fetch(LATE)]
    report.figures["late_p50_s"] = round(percentile(late, 0.5), 3)
    report.figures["late_p99_s"] = round(percentile(late, 0.99), 3)
    disorder = await place.connection.fetch(OUT_OF_ORDER)
    report.expect(not disorder, f"jobs due at one instant did not go by id: {[tuple(each) for each in disorder[:3]]}")
    await place.connection.execute("delete from worker.job_queue where status = 'pending'")
    await place.judge(report)
    await account(place, report)


@experiment("42-commit-order", nightly=500)
async def commit_order(place: Place, report: Report) -> None:
    """Transactions insert, wait up to 0.4 s and then commit or roll back, fifty at a time, while daemons look."""
    config = place.configure(FREE)
    await place.started(place.spawn(config), place.spawn(config))
    pool = await asyncpg.create_pool(place.dsn, min_size=AT_ONCE, max_size=AT_ONCE)
    plans = [(place.chance.randrange(1, 4), place.chance.uniform(0, 0.4), place.chance.random() < ROLLED_BACK)
             for _ in range(report.planned)]  # fmt: skip
    committed: dict[int, float] = {}
    undone: set[int] = set()

    async def enqueuer(jobs: int, delay: float, undo: bool) -> None:
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            ids = [await connection.fetchval("""select worker.enqueue('free', '{"ms": 1}')""") for _ in range(jobs)]
            await asyncio.sleep(delay)
            if undo:
                await transaction.rollback()
                undone.update(ids)
            else:
                committed.update(dict.fromkeys(ids, time.time()))
                await transaction.commit()
            report.injected += 1

    async with asyncio.timeout(120), pool:
        await asyncio.gather(*(enqueuer(*plan) for plan in plans))
    report.expect(await place.settled(30), "jobs are not final after 30 s")
    started = dict(await place.connection.fetch(STARTED))
    waits = [started[job] - at for job, at in committed.items() if job in started]
    report.figures |= {"rolled_back": len(undone), "commit_to_start_p50_s": round(percentile(waits, 0.5), 3),
                       "commit_to_start_max_s": round(max(waits), 3)}  # fmt: skip
    skipped = committed.keys() - started.keys()
    report.expect(not skipped, f"{len(skipped)} jobs were skipped, such as {sorted(skipped)[:5]}")
    report.expect(max(waits) <= WAKE_SECONDS, f"a job waited {max(waits):.1f} s after its commit")
    ran = undone & {int(line[0]) for line in lines(place.folder, RUNS)}
    report.expect(not ran, f"jobs ran that were rolled back: {sorted(ran)[:5]}")
    await place.judge(report)
    await account(place, report)
