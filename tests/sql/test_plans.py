"""Plans: what the claim really executes, and how much it reads; blocks are counted, never time."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.sql.conftest import Queue, verdict

Session = Callable[..., Awaitable[Queue]]

EMPTY_CLAIM_BLOCKS = 100  # index pages of a few hops; the rows in front alone would be hundreds
HOLDER_BLOCKS = 60  # of a whole insert; to read all of the tenant takes hundreds
FULL_CLAIM_BLOCKS = 40  # for each claimed row: its page, its new version, four or five indexes of two or three levels


@pytest.fixture
async def executed(session: Session) -> tuple[Queue, list[str]]:
    """A session whose plans, those inside functions too, are appended to the list as they are executed."""
    queue = await session()
    try:
        await queue.db.execute("load 'auto_explain'")
    except asyncpg.PostgresError:
        pytest.skip("this server has no auto_explain")
    plans: list[str] = []
    queue.db.add_log_listener(lambda _, message: plans.append(message.message))
    await queue.db.execute(
        "set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;"
        "set auto_explain.log_level = 'notice'; set client_min_messages = 'notice'"
    )
    return queue, plans


async def test_the_indexes_that_every_claim_writes_to_have_room(queue: Queue) -> None:
    found = await queue.db.fetch(
        "select relname, reloptions from pg_class where relnamespace = 'worker'::regnamespace and relkind = 'i'"
        " and 'fillfactor=50' = any (reloptions) order by 1"
    )
    assert [row["relname"] for row in found] == ["job_queue_by_type", "job_queue_pkey"]


async def plan_of(executed: tuple[Queue, list[str]], call: Callable[[], Awaitable[object]], *marks: str) -> str:
    """The plan of the one statement that has all of these texts in it, run by the call."""
    queue, plans = executed
    plans.clear()
    await call()
    await queue.db.execute("select")
    await asyncio.sleep(0)  # listeners are called by the loop, each in its turn
    found = [plan for plan in plans if all(mark in plan for mark in marks)]
    assert len(found) == 1, found
    return found[0]


async def crowded(queue: Queue) -> None:
    """20,000 rows in the far future of one type, before the planner's eyes, and 20,000 due ones of a paused type."""
    for name in ("busy", "paused", "quiet"):
        await queue.declare(name)
    await queue.db.execute("""
        update worker.job_type set paused = true where name = 'paused';
        insert into worker.job_queue (job_type, priority, scheduled_at)
          select 'busy', 0, now() + interval '1 day' from generate_series(1, 20000);
        insert into worker.job_queue (job_type, priority) select 'paused', 0 from generate_series(1, 20000);
    """)


async def blocks(queue: Queue, n: int = 100) -> int:
    """Blocks that one claim touched, found in memory or not, after a first one has warmed the session up."""
    me = queue.me or await queue.register()
    types = ["busy", "paused", "quiet"]
    await queue.claim(n, types=types)
    queue.batch += 1
    call = f"select * from worker.claim({me}, {queue.batch + 1000}, $1, {n})"
    plan = await queue.db.fetchval(f"explain (analyze, buffers, format json) {call}", types)
    top = json.loads(plan)[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


async def test_the_claim_looks_through_the_due_index_only(queue: Queue, executed: tuple[Queue, list[str]]) -> None:
    await crowded(queue)
    await queue.enqueue("quiet")
    claimer, _ = executed
    for analyzed in (False, True):
        if analyzed:
            await queue.db.execute("analyze worker.job_queue")
        await claimer.register()
        look = await plan_of(executed, claimer.claim, "picked", "skip locked")
        assert "Seq Scan on job_queue" not in look
        assert look.count("job_queue_due") >= 2, look  # the hops, the rows of a line
        assert "LockRows" in look
        assert "Sort Key: q." not in look, "rows of a line come in the index's order"
        bounds = [line for line in look.splitlines() if "Index Cond" in line and "scheduled_at" in line]
        assert ["<=" in bound for bound in bounds] == [True], "future rows are outside the index's bounds"


async def test_a_start_finds_its_rows_by_their_place(queue: Queue, executed: tuple[Queue, list[str]]) -> None:
    await crowded(queue)
    await queue.enqueue("quiet")
    claimer, _ = executed
    await claimer.register()
    start = await plan_of(executed, claimer.claim, "Update on job_queue", "job_type t")
    assert "Tid Scan on job_queue" in start


async def test_the_lines_are_hopped_to_and_not_listed(queue: Queue, executed: tuple[Queue, list[str]]) -> None:
    await crowded(queue)
    session, _ = executed
    call = "select count(*) from worker.lines(array['busy', 'paused', 'quiet'])"
    plan = await plan_of(executed, lambda: session.db.fetchval(call), "worker.lines", "Recursive Union")
    assert plan.count("job_queue_due") == 2
    assert "Seq Scan on job_queue" not in plan


async def test_verdicts_find_their_rows_by_id_also_under_stale_statistics(
    queue: Queue, executed: tuple[Queue, list[str]]
) -> None:
    await queue.declare("busy")
    await queue.db.execute("insert into worker.job_queue (job_type) select 'busy' from generate_series(1, 10)")
    await queue.db.execute("analyze worker.job_queue")
    await queue.db.execute("insert into worker.job_queue (job_type) select 'busy' from generate_series(1, 20000)")
    jobs = await queue.take(50)
    settler, _ = executed
    call = lambda: settler.settle(*map(verdict, jobs))  # noqa: E731
    plan = await plan_of(executed, call, "update worker.job_queue j set", "unnest")
    assert "job_queue_pkey" in plan
    assert "Seq Scan on job_queue" not in plan


@pytest.mark.parametrize("analyzed", ["empty", "full", "never"])
async def test_an_empty_claim_reads_little_however_much_lies_in_front(queue: Queue, analyzed: str) -> None:
    if analyzed == "empty":
        await queue.db.execute("analyze worker.job_queue")
    await crowded(queue)
    if analyzed == "full":
        await queue.db.execute("analyze worker.job_queue")
    assert await blocks(queue) < EMPTY_CLAIM_BLOCKS


async def test_a_full_claim_reads_in_proportion_to_what_it_takes(queue: Queue) -> None:
    await crowded(queue)
    await queue.enqueue_many("quiet", *[{}] * 400)
    assert await blocks(queue, 100) < 100 * FULL_CLAIM_BLOCKS
    assert await queue.db.fetchval("select count(*) from worker.job_queue where status = 'running'") == 200


@pytest.mark.parametrize("tenant", [None, "a"])
async def test_who_holds_a_key_is_found_by_the_key_also_in_a_session_that_met_an_empty_table(
    queue: Queue, tenant: str | None
) -> None:
    """Its plan stays as it was made, until somebody analyzes the table."""
    await queue.declare("once")
    insert = "insert into worker.job_queue (job_type, tenant_id, unique_key) select 'once', $1, 'key ' || n from {} n"
    for first in (1, 1001, 2001, 3001):
        await queue.db.execute(insert.format(f"generate_series({first}, {first + 999})"), tenant)
    one_more = insert.format("generate_series(4001, 4001)")
    plan = await queue.db.fetchval(f"explain (analyze, buffers, format json) {one_more}", tenant)
    top = json.loads(plan)[0]["Plan"]
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] < HOLDER_BLOCKS


async def test_a_beat_with_a_long_history_reads_little(queue: Queue) -> None:
    await queue.declare("busy")
    await queue.db.execute("insert into worker.job_queue (job_type) select 'busy' from generate_series(1, 3000)")
    for _ in range(3):
        await queue.settle(*[verdict(job) for job in await queue.take(1000)])
    for _ in range(2):
        call = f"select * from worker.beat({queue.me}, 3)"
        plan = await queue.db.fetchval(f"explain (analyze, buffers, format json) {call}")
    assert json.loads(plan)[0]["Plan"]["Shared Hit Blocks"] < 30
