"""The cache webhook of the stats job, as it is shipped: a real daemon, a real receiver, and what is sent when."""

import re

import orjson
import pytest

from tests.heart import daemon, until
from tests.jobs.webhook import (
    FAR,
    KEY,
    QUIET,
    STATS_DONE,
    TAGS,
    assert_stats_ran_once,
    breaks,
    enqueued,
    jobs,
    loaded,
    mended,
    sent,
)
from tests.support import ROOT
from worker.demo.receiver import Reply
from worker.demo.tables import finish_match


async def test_a_match_becomes_one_call_with_all_tags(connection, clubs, config, receiver):
    async with daemon(config):
        await finish_match(connection, clubs.tenants[0].id)
        await until(connection, QUIET)
    (call,) = receiver.calls
    (stats,) = await jobs(connection, "stats_update")
    (cache,) = await jobs(connection, "invalidate_cache")
    assert (call.method, call.path) == ("POST", "/api/internal/cache/invalidate")
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert (set(call.json), call.json["source"]) == ({"tags", "source", "requestId"}, "worker")
    assert (len(call.json["tags"]), set(call.json["tags"])) == (11, TAGS)
    assert call.json["requestId"] == stats["correlation_id"] == cache["correlation_id"]
    assert (cache["status"], cache["parent_id"], cache["tenant_id"]) == ("completed", stats["id"], stats["tenant_id"])
    assert await connection.fetchval("select bool_and(announced) from worker.job_step")


async def test_the_tags_of_a_partial_success_go_out_and_the_rest_after_the_retry(
    connection, clubs, path, dsn, receiver
):
    """The hall of fame fails: ten tags are sent while it waits for its retry, and then its own alone."""
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace('first = "1ms"\nfactor = 2.0\nmax = "10m"', 'first = "10h"\nfactor = 2.0\nmax = "10h"')
    )
    await breaks(connection, "hall_of_fame")
    async with daemon(loaded(path, dsn, receiver)):
        await finish_match(connection, clubs.tenants[0].id)
        await until(connection, "select count(*) = 1 from worker.job_queue where status = 'completed'")
        assert sent(receiver) == [TAGS - {"hall_of_fame"}]
        (stats,) = await jobs(connection, "stats_update")
        assert (stats["status"], stats["attempt"]) == ("pending", 1)
        await mended(connection)
        await connection.execute("update worker.job_queue set scheduled_at = now() where id = $1", stats["id"])
        await until(connection, QUIET)
    assert sent(receiver) == [TAGS - {"hall_of_fame"}, {"hall_of_fame"}]
    (stats,) = await jobs(connection, "stats_update")
    assert (stats["status"], stats["attempt"]) == ("completed", 2)


async def test_the_tags_of_a_job_that_fails_for_good_go_out(connection, clubs, config, receiver):
    await breaks(connection, "hall_of_fame")
    async with daemon(config):
        await finish_match(connection, clubs.tenants[0].id)
        await until(connection, QUIET)
    (stats,) = await jobs(connection, "stats_update")
    assert (stats["status"], stats["finish_reason"]) == ("failed", "exhausted")
    assert sent(receiver) == [TAGS - {"hall_of_fame"}]


async def test_a_partial_answer_repeats_the_failed_tags_only(connection, clubs, config, receiver):
    receiver.plan(Reply.partial(["hall_of_fame", "match_report"]), Reply.partial(["match_report"]))
    async with daemon(config):
        await finish_match(connection, clubs.tenants[0].id)
        await until(connection, QUIET)
    assert sent(receiver) == [TAGS, {"hall_of_fame", "match_report"}, {"match_report"}]
    (cache,) = await jobs(connection, "invalidate_cache")
    assert (cache["status"], cache["attempt"]) == ("completed", 3)
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 3  # other content, another call
    await assert_stats_ran_once(connection)


@pytest.mark.parametrize(
    "refusal",
    [Reply(503), Reply(401), Reply(302, headers={"location": "/"}), Reply(manner="broken"), Reply.partial(["x"])],
    ids=["503", "401", "302", "broken", "207 of what was not sent"],
)  # fmt: skip
async def test_an_endpoint_that_refuses_costs_deliveries_only(connection, clubs, config, receiver, refusal):
    receiver.plan(refusal, refusal)
    async with daemon(config):
        await finish_match(connection, clubs.tenants[0].id)
        await until(connection, QUIET)
    assert sent(receiver) == [TAGS] * 3
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1  # the same call, for who keeps count
    assert set(receiver.tags) == TAGS
    await assert_stats_ran_once(connection)


async def test_a_dead_endpoint_neither_fails_nor_repeats_the_statistics(connection, clubs, config, receiver):
    """Nobody listens: the stats jobs complete; when somebody does, what waited is delivered in a few calls."""
    await receiver.stop()
    async with daemon(config):
        for tenant in clubs.tenants:
            for _ in range(2):
                await finish_match(connection, tenant.id)
                await until(connection, STATS_DONE)
        await until(
            connection, "select bool_and(attempt > 1) from worker.job_queue where job_type = 'invalidate_cache'"
        )
        assert receiver.calls == []
        await receiver.start()
        await until(connection, QUIET)
    await assert_stats_ran_once(connection, 6)
    assert {job["status"] for job in await jobs(connection, "invalidate_cache")} == {"completed"}
    assert set(receiver.tags) == TAGS


async def test_an_endpoint_that_is_gone_ends_the_webhook_alone(connection, clubs, config, receiver):
    receiver.plan(Reply(410))
    async with daemon(config):
        await finish_match(connection, clubs.tenants[0].id)
        await until(connection, QUIET)
    (cache,) = await jobs(connection, "invalidate_cache")
    assert (cache["status"], cache["finish_reason"], cache["attempt"]) == ("failed", "permanent", 1)
    assert "410" in cache["errors"]
    assert len(receiver.calls) == 1
    await assert_stats_ran_once(connection)


async def test_many_jobs_become_few_calls_that_carry_all_tags(connection, clubs, config, receiver):
    """2,000 webhook jobs of one club, up to 500 in a call."""
    await enqueued(connection, clubs.tenants[0].id, [["all", f"tag-{number}"] for number in range(2000)])
    async with daemon(config):
        await until(connection, QUIET, seconds=60)
    assert set(receiver.tags) == {"all", *(f"tag-{number}" for number in range(2000))}
    assert len(receiver.calls) < 20
    assert all(len(call.json["tags"]) == len(set(call.json["tags"])) for call in receiver.calls)
    assert {job["status"] for job in await jobs(connection, "invalidate_cache")} == {"completed"}


async def test_a_club_s_tags_do_not_travel_with_another_s(connection, clubs, config, receiver):
    for number, tenant in enumerate(clubs.tenants):
        await enqueued(connection, tenant.id, [[f"club-{number}"]] * 5)
    async with daemon(config):
        await until(connection, QUIET)
    assert {frozenset(tags) for tags in sent(receiver)} == {frozenset({f"club-{number}"}) for number in range(3)}


async def test_the_page_s_query_tells_who_waits_and_why(connection, clubs, config, receiver):
    page = (ROOT / "docs/systems/stats.md").read_text(encoding="utf-8").partition("## The cache webhook")[2]
    (query,) = re.findall(r"```sql\n(.*?)```", page.partition("\n## ")[0], flags=re.S)
    receiver.plan(Reply(503, headers={"retry-after": "600"}))
    async with daemon(config):
        await finish_match(connection, clubs.tenants[0].id)
        await until(connection, f"select exists (select from worker.job_queue where status = 'pending' and {FAR})")
    (waiting,) = await connection.fetch(query)
    assert (waiting["label"], waiting["attempt"], set(orjson.loads(waiting["tags"]))) == ("retrying", 1, TAGS)
    assert "answered 503" in waiting["last_error"]
