"""No tag is lost: daemons that are killed, a receiver that does half of it, one that is away for long."""

import asyncio
from pathlib import Path

import asyncpg

from tests.heart import becomes, new_process, until
from tests.jobs.webhook import (
    FAR,
    QUIET,
    STATS_DONE,
    TAGS,
    assert_stats_ran_once,
    breaks,
    jobs,
    mended,
    sent,
)
from tests.sql.conftest import Queue, verdict
from worker.demo.receiver import Reply
from worker.demo.tables import finish_match

WAITS = (
    f"select exists (select from worker.job_queue where job_type = 'invalidate_cache' and status = 'pending' and {FAR})"
)
MATCHES = 10_000
OUTAGE = 8.0  # seconds, for ten minutes
PAGE = 500  # stats jobs that end at once


async def test_kill_between_settle_and_delivery_loses_no_tag(connection, clubs, config, receiver, daemons):
    """The stats job is settled and nobody has taken its webhook: it is a row, and the next daemon finds it."""
    first = await asyncio.to_thread(daemons.start, config.path)
    await connection.execute("select worker.pause('invalidate_cache')")
    await finish_match(connection, clubs.tenants[0].id)
    await until(connection, STATS_DONE)
    await asyncio.to_thread(first.kill)
    (cache,) = await jobs(connection, "invalidate_cache")
    assert (cache["status"], cache["attempt"], receiver.calls) == ("pending", 0, [])
    await connection.execute("select worker.resume('invalidate_cache')")
    await asyncio.to_thread(daemons.start, config.path)
    await until(connection, QUIET, seconds=60)
    assert sent(receiver) == [TAGS]
    await assert_stats_ran_once(connection)


async def test_kill_during_the_call_loses_no_tag(connection, clubs, config, receiver, daemons):
    """The receiver hangs on the first call, and the daemon dies with it; the next one delivers."""
    receiver.plan(Reply(manner="hang"))
    first = await asyncio.to_thread(daemons.start, config.path)
    await finish_match(connection, clubs.tenants[0].id)
    await becomes(lambda: receiver.calls)
    await asyncio.to_thread(first.kill)
    (cache,) = await jobs(connection, "invalidate_cache")
    assert (cache["status"], receiver.tags) == ("running", [])
    await asyncio.to_thread(daemons.start, config.path)
    await until(connection, QUIET, seconds=60)
    assert set(receiver.tags) == TAGS
    await assert_stats_ran_once(connection)


async def test_kill_while_a_delivery_waits_for_its_retry_loses_no_tag(connection, clubs, config, receiver, daemons):
    receiver.plan(Reply(503, headers={"retry-after": "600"}))
    first = await asyncio.to_thread(daemons.start, config.path)
    await finish_match(connection, clubs.tenants[0].id)
    await until(connection, WAITS)
    await asyncio.to_thread(first.kill)
    await connection.execute("update worker.job_queue set scheduled_at = now() where status = 'pending'")
    await asyncio.to_thread(daemons.start, config.path)
    await until(connection, QUIET, seconds=60)
    assert sent(receiver) == [TAGS, TAGS]
    await assert_stats_ran_once(connection)


async def test_kill_after_a_partial_answer_loses_no_tag(connection, clubs, config, receiver, daemons):
    """207: what failed is all that is left on the row, and all that the next daemon sends."""
    receiver.plan(Reply.json(207, {"failed_tags": ["hall_of_fame", "match_report"]}, **{"retry-after": "600"}))
    first = await asyncio.to_thread(daemons.start, config.path)
    await finish_match(connection, clubs.tenants[0].id)
    await until(connection, WAITS)
    await asyncio.to_thread(first.kill)
    await connection.execute("update worker.job_queue set scheduled_at = now() where status = 'pending'")
    await asyncio.to_thread(daemons.start, config.path)
    await until(connection, QUIET, seconds=60)
    assert sent(receiver) == [TAGS, {"hall_of_fame", "match_report"}]
    await assert_stats_ran_once(connection)


async def test_a_delivery_in_retry_and_a_new_one_lose_no_tag(connection, clubs, config, receiver, daemons):
    """Ten tags are in retry when the eleventh, whose step failed at first, comes in a job of its own."""
    await breaks(connection, "hall_of_fame")
    await receiver.stop()
    await asyncio.to_thread(daemons.start, config.path)
    await finish_match(connection, clubs.tenants[0].id)
    await until(connection, STATS_DONE)
    retried = "select max(attempt) > {} from worker.job_queue where job_type = 'invalidate_cache'"
    await until(connection, retried.format(1))
    await mended(connection)
    (stats,) = await jobs(connection, "stats_update")
    await connection.execute("select worker.retry($1)", stats["id"])
    await until(connection, STATS_DONE)
    (old, new) = await jobs(connection, "invalidate_cache")
    await until(connection, retried.format(old["attempt"] + 1))
    await receiver.start()
    await until(connection, QUIET, seconds=60)
    assert (receiver.tags.count("hall_of_fame"), set(receiver.tags)) == (1, TAGS)
    assert [job["status"] for job in await jobs(connection, "invalidate_cache")] == ["completed"] * 2
    assert (await jobs(connection, "stats_update"))[0]["status"] == "completed"
    assert old["parent_id"] == new["parent_id"] == stats["id"]


async def test_ten_thousand_matches_in_ten_minutes_without_a_receiver(connection, clubs, config, receiver, daemons):
    """Time is 75 times as fast, also in the retries. All tags arrive, in a few calls; no statistics are run again."""
    hurry(config.path)
    queue, tenant = Queue(connection), clubs.tenants[0].id
    queue.me = await new_process(connection, lease=120)
    await connection.fetch("select * from worker.register_backend($1, 'beat')", queue.me)
    await connection.execute("set plan_cache_mode = force_custom_plan")  # the first plans are those of an empty table
    await receiver.stop()
    await asyncio.to_thread(daemons.start, config.path)
    began = asyncio.get_running_loop().time()
    for other in clubs.tenants[1:]:
        await finish_match(connection, other.id)  # by the graph, like any day
    await until(connection, STATS_DONE)
    for number in range(MATCHES // PAGE):
        await finish_stats(queue, str(tenant), number * PAGE)
        await asyncio.sleep(began + OUTAGE * (number + 1) * PAGE / MATCHES - asyncio.get_running_loop().time())
    before = await claims(connection)
    assert (len(before), receiver.calls) == (MATCHES + 2, [])
    tried = await connection.fetchval("select max(attempt) from worker.job_queue where job_type = 'invalidate_cache'")
    assert tried > 5
    await receiver.start()
    await until(connection, QUIET, seconds=60)
    expected = {"all", *(f"match-{number}" for number in range(MATCHES))} | TAGS
    assert set(receiver.tags) == expected
    assert len(receiver.calls) < 60
    assert await claims(connection) == before
    deliveries = await jobs(connection, "invalidate_cache")
    assert (len(deliveries), {job["status"] for job in deliveries}) == (MATCHES + 2, {"completed"})


def hurry(path: Path) -> None:
    """The shipped retry of the webhook, 1 s to 1 m, 75 times as fast."""
    text = path.read_text(encoding="utf-8")
    assert 'first = "20ms", max = "50ms"' in text
    path.write_text(text.replace('first = "20ms", max = "50ms"', 'first = "13ms", max = "800ms"'), encoding="utf-8")


async def finish_stats(queue: Queue, tenant: str, first: int) -> None:
    """A page of stats jobs with a tag of their own each, enqueued, claimed and settled as a daemon does, in one
    transaction, so that the real daemon does not take them: it could not run 10,000 graphs in the time of a test.

    Each has keys of its own: by those of the file there would be one waiting and one running.
    """
    async with queue.db.transaction():
        await queue.db.execute(
            "insert into worker.job_queue (job_type, payload, tenant_id, unique_key, concurrency_key)"
            " select 'stats_update', jsonb_build_object('n', n), $1, 'match-' || n, 'match-' || n"
            " from generate_series($2::int, $2 + $3::int - 1) n",
            tenant, first, PAGE,
        )  # fmt: skip
        taken = await queue.take(PAGE, types=["stats_update"])
        await queue.db.execute(
            "insert into worker.job_step (job_id, name, status, attempt, claim, tags)"
            " select id, 'all_time', 'completed', 1, claim, array['all', 'match-' || (payload ->> 'n')]"
            " from worker.job_queue where id = any ($1)",
            [job["id"] for job in taken],
        )
        settled = await queue.settle(*(verdict(job) for job in taken))
        assert len(settled) == PAGE


async def claims(connection: asyncpg.Connection) -> list[tuple[int, int, int, str]]:
    """Of every stats job: a run of it would be another claim, another attempt."""
    return [(job["id"], job["claim"], job["attempt"], job["status"]) for job in await jobs(connection, "stats_update")]
