"""D.2: statistics that are wrong, snapshots that hold everything, tables that are full; what a claim costs then."""

import asyncpg

from tests.stress.asking import Readiness, metric
from tests.stress.claimer import Claimer
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
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
    await evidence_off(place)
    readiness = Readiness()
    await place.started(place.spawn(place.configure(FREE + readiness.section, DEFAULT_TERMS)))
    claimer = await Claimer.of(place.dsn, "due")
    base = await _p99(place, claimer, 10_000)
    stranger = await asyncpg.connect(place.dsn, server_settings={"application_name": "the stranger"})
    await stranger.execute("begin isolation level repeatable read")
    await stranger.fetchval("select count(*) from worker.job_queue")
    for _ in range(2):
        held = await _p99(place, claimer, 10_000)
    report.injected += 1
    dead = await place.connection.fetchval("select n_dead_tup from pg_stat_user_tables where relname = 'job_queue'")
    report.figures |= {"claim_p99_before_ms": base, "claim_p99_held_ms": held, "dead_tuples": dead}
    report.figures["blocks_a_claim_held"] = await claimer.blocks(BATCH)
    report.expect(held <= HELD_FACTOR * base, f"p99 of a claim is {held} ms while a snapshot is held, {base} ms before")
    seen = await metric(readiness.port, "worker_oldest_transaction_seconds")
    report.figures["oldest_transaction_s"] = round(seen, 1)
    report.expect(seen > 1, "no metric shows the transaction that holds everything")
    await stranger.close()
    await place.connection.execute("vacuum worker.job_queue")
    after = await _p99(place, claimer, 10_000)
    report.figures |= {"claim_p99_after_ms": after, "blocks_a_claim_after": await claimer.blocks(BATCH)}
    report.expect(after <= HELD_FACTOR * base, f"p99 of a claim is {after} ms after it was let go, {base} ms before")
    await claimer.leave()
    await place.judge(report, "I6")


@experiment("26-full-table", nightly=1)
async def full_table(place: Place, report: Report) -> None:
    """A million rows in the future, 100,000 failed, 50,000 completed: a claim costs what it cost before."""
    await evidence_off(place)
    claimer = await Claimer.of(place.dsn, "due")
    base = await _p99(place, claimer, 15_000)
    await _filled(place)
    full = await _p99(place, claimer, 15_000)
    report.injected += 1
    report.figures |= {"claim_p99_empty_ms": base, "claim_p99_full_ms": full}
    report.figures["blocks_of_an_idle_claim"] = await claimer.blocks(BATCH)
    report.expect(full <= FULL_FACTOR * base, f"p99 of a claim is {full} ms in a full table, {base} ms in an empty one")
    await claimer.leave()
    await place.judge(report, "I1", "I6")


async def _p99(place: Place, claimer: Claimer, jobs: int) -> float:
    """Milliseconds; so many jobs are enqueued, claimed and settled."""
    await place.connection.execute(DUE, jobs)
    claimer.seconds.clear()
    assert await claimer.work_off(BATCH) == jobs
    return round(1000 * percentile(claimer.seconds, 0.99), 2)


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
