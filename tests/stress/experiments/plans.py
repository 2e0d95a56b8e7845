"""D.2: statistics that are wrong, snapshots that hold everything, tables that are full; what a claim costs then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.stress.asking import Readiness, metric
from tests.stress.claimer import Claimer
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.place import place as another_place
from tests.stress.postgres import DEFAULT_TERMS, evidence_off
from tests.stress.telling import percentile
from tests.stress.workload import FREE

BATCH = 50
IDLE_BLOCKS = 50
HELD_FACTOR = 5.0  # of the claim's p99, while a snapshot is held
FULL_FACTOR = 2.0  # of the claim's p99, with a full table
# Whatever the planner is told, a claim takes what it was asked for. tests/sql/test_claim.py has more of them, and what
# is locked; tests/sql/test_plans.py has the indexes.
STEERED = (
    {},
    {"plan_cache_mode": "force_generic_plan"},
    {"enable_indexscan": "off", "enable_bitmapscan": "off", "enable_indexonlyscan": "off"},
    {"enable_seqscan": "off", "enable_nestloop": "off"},
    {"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_sort": "off"},
    {"enable_material": "off", "enable_memoize": "off"},
)
DUE = "insert into worker.job_queue (job_type, priority) select 'due', n % 4 from generate_series(1, $1::int) n"
DEAD = "select n_dead_tup from pg_stat_user_tables where relname = 'job_queue'"
FUTURE = """
    insert into worker.job_queue (job_type, scheduled_at)
    select 'due', now() + interval '1 day' from generate_series(1, $1::int) n
"""


@experiment("25-wrong-statistics", fast=6)
async def wrong_statistics(place: Place, report: Report) -> None:
    """Analysed when it was empty, then 200,000 rows; no more statistics; the planner steered by its switches."""
    await evidence_off(place)
    await place.connection.execute("alter table worker.job_queue set (autovacuum_enabled = off)")
    await place.connection.execute("analyze worker.job_queue")
    first = await Claimer.of(place.dsn, "due")
    await place.connection.execute(FUTURE, 200_000)
    await first.claim(BATCH)
    report.figures["blocks_of_an_idle_claim"] = await first.blocks(BATCH)
    report.expect(report.figures["blocks_of_an_idle_claim"] <= IDLE_BLOCKS, "an idle claim reads too much")
    await place.connection.execute(DUE, 3 * BATCH * len(STEERED))
    for settings in STEERED:
        claimer = await Claimer.of(place.dsn, "due", **settings)
        for n in (1, 7, BATCH):
            rows = await claimer.claim(n)
            report.expect(len(rows) == n, f"{len(rows)} rows claimed of {n} asked for, under {settings or 'defaults'}")
            await claimer.settle(rows)
        await claimer.leave()
        report.injected += 1
    await first.leave()
    await place.judge(report, "I1", "I6")  # those of tomorrow are left, and nobody wrote down the claims
    running = await place.connection.fetchval("select count(*) from worker.job_queue where status = 'running'")
    report.expect(running == 0, f"{running} rows are running that no claim answered with")


@experiment("24-held-snapshot", nightly=1)
async def held_snapshot(place: Place, report: Report) -> None:
    """A stranger holds a snapshot while 20,000 jobs pass; then lets go, and vacuum follows."""
    readiness = Readiness()
    await place.started(place.spawn(place.configure(FREE + readiness.section, DEFAULT_TERMS)))
    async with _twins(place) as (base, claimer):
        before = (await _p99s(base, claimer, 10_000))[1]
        stranger = await asyncpg.connect(place.dsn, server_settings={"application_name": "the stranger"})
        await stranger.execute("begin isolation level repeatable read; select count(*) from worker.job_queue")
        await _p99s(base, claimer, 10_000)
        usual, held = await _p99s(base, claimer, 10_000)
        report.injected += 1
        report.figures |= {"claim_p99_before_ms": before, "claim_p99_held_ms": held, "beside_it_ms": usual}
        report.expect(held <= HELD_FACTOR * usual, f"p99 of a claim: {held} ms behind a held snapshot, {usual} without")
        report.figures["dead_tuples"] = await place.connection.fetchval(DEAD)
        report.figures["blocks_a_claim_held"] = await claimer.blocks(BATCH)
        report.figures["oldest_transaction_s"] = round(await _shown(readiness.port), 1)
        report.expect(report.figures["oldest_transaction_s"] > 1, "no metric shows the transaction that holds it all")
        named = await place.connection.fetchval("select oldest_transaction_by from worker.queue_health")
        report.expect("the stranger" in named, f"the holder is not named, but {named}")
        await stranger.close()
        await place.connection.execute("vacuum worker.job_queue")
        usual, after = await _p99s(base, claimer, 10_000)
        report.figures |= {"claim_p99_after_ms": after, "blocks_a_claim_after": await claimer.blocks(BATCH)}
        report.expect(after <= HELD_FACTOR * usual, f"p99 of a claim: {after} ms after that, {usual} beside it")
    await place.judge(report, "I6")


@experiment("26-full-table", nightly=1)
async def full_table(place: Place, report: Report) -> None:
    """A million rows in the future, 100,000 failed, 50,000 completed: a claim costs what it costs in an empty table."""
    async with _twins(place) as (base, claimer):
        await _filled(place)
        report.injected += 1
        empty, full = await _p99s(base, claimer, 15_000)
        report.figures |= {"claim_p99_empty_ms": empty, "claim_p99_full_ms": full}
        report.figures["blocks_of_an_idle_claim"] = await claimer.blocks(BATCH)
        report.expect(full <= FULL_FACTOR * empty, f"p99 of a claim: {full} ms in it, {empty} in an empty one")
    await place.judge(report, "I1", "I6")


@asynccontextmanager
async def _twins(place: Place) -> AsyncIterator[tuple[Claimer, Claimer]]:
    """A claimer in a database beside this one, to which nothing is done, and one in this."""
    async with another_place(place.server, place.folder, seed=0) as beside:
        claimers = []
        for each in (beside, place):
            await evidence_off(each)
            claimers.append(await Claimer.of(each.dsn, "due"))
        yield claimers[0], claimers[1]
        for claimer in claimers:
            await claimer.leave()


async def _p99s(one: Claimer, other: Claimer, jobs: int) -> tuple[float, float]:
    """Milliseconds of a claim with each, in turns, so that whatever else the machine does hits both."""
    for claimer in (one, other):
        await claimer.execute(DUE, jobs)
        claimer.seconds.clear()
    for _ in range(jobs // BATCH):
        for claimer in (one, other):
            rows = await claimer.claim(BATCH)
            assert len(rows) == BATCH
            await claimer.settle(rows)
    found = [round(1000 * percentile(claimer.seconds, 0.99), 2) for claimer in (one, other)]
    return found[0], found[1]


async def _shown(port: int) -> float:
    """What the daemon's metric says of the oldest transaction, once it has looked; it does every five seconds."""
    for _ in range(100):
        if (seen := await metric(port, "worker_oldest_transaction_seconds")) > 1:
            return seen
        await asyncio.sleep(0.1)
    return 0.0


async def _filled(place: Place) -> None:
    """Without the triggers, which fill in what is given here."""
    await place.connection.execute("set session_replication_role = replica")
    for status, count, days in (("pending", 1_000_000, 1), ("failed", 100_000, -1), ("completed", 50_000, -1)):
        await place.connection.execute(
            "insert into worker.job_queue (job_type, priority, scheduled_at, status, queued, trouble, max_attempts,"
            " correlation_id, created_at, finished_at, finish_reason)"
            " select 'due', n % 4, now() + $3::int * interval '1 day' + n * interval '1 ms', $1::text,"
            " $1 = 'pending', $1 = 'failed', 5, n::text, now(), case when $1 <> 'pending' then now() end,"
            " case when $1 = 'failed' then 'exhausted' end from generate_series(1, $2::int) n",
            status, count, days,
        )  # fmt: skip
    await place.connection.execute("reset session_replication_role")
