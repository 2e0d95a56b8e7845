"""The cache webhook of the stats job, as it is shipped: a real daemon, a real receiver, and what neither may lose."""

import asyncio
import re
import tomllib
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.heart import QUICK, becomes, daemon, until
from tests.jobs.stats_database import install
from tests.processes import Fleet, fleet
from tests.support import ROOT
from worker.config import Config, load
from worker.demo import tables
from worker.demo.club import Club, generate
from worker.demo.daemon import with_webhook
from worker.demo.receiver import Receiver, Reply
from worker.demo.tables import finish_match

KEY = "a-key-of-the-tests"
STEPS = tomllib.loads((ROOT / "worker.toml").read_text(encoding="utf-8"))["job"]["stats_update"]["steps"]
TAGS = {tag for step in STEPS.values() for tag in step["tags"]}
QUIET = "select not exists (select from worker.job_queue where status in ('pending', 'running'))"
STATS_DONE = f"{QUIET[:-1]} and job_type = 'stats_update')"
FAR = "scheduled_at > now() + interval '5 minutes'"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(KEY) as serving:
        yield serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The shipped file with the webhook switched on, and without long waits."""
    text = with_webhook((ROOT / "worker.toml").read_text(encoding="utf-8"))
    for slow, quick in (
        ('poll = "5s"', 'poll = "1s"'),
        ('first = "2s"', 'first = "1ms"'),
        ('first = "1s", max = "1m"', 'first = "20ms", max = "50ms"'),
    ):
        assert slow in text
        text = text.replace(slow, quick)
    file = tmp_path / "worker.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def config(path: Path, dsn: str, receiver: Receiver) -> Config:
    return loaded(path, dsn, receiver)


def loaded(path: Path, dsn: str, receiver: Receiver) -> Config:
    return load(path, {"DATABASE_URL": dsn, "APP_URL": receiver.origin, "INTERNAL_API_KEY": KEY})


@pytest.fixture
def daemons(config: Config, dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Daemons as processes of their own, which know the receiver and soon miss a dead one."""
    monkeypatch.setenv("APP_URL", receiver.origin)
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    text = config.path.read_text(encoding="utf-8")
    text = re.sub(r"(?s)\[worker\].*?\n\n", f"[worker]\n{QUICK}\n\n", text, count=1)
    config.path.write_text(text, encoding="utf-8")
    with fleet(config.path.parent, dsn) as started:
        yield started


@pytest.fixture
async def clubs(connection: asyncpg.Connection, config: Config) -> Club:
    """Three small clubs whose last matches are still to be played."""
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(config.declarations()).decode())
    await install(connection)
    made = generate(7, players=24, matches=40, tenants=3, seasons=2)
    await tables.load(connection, made)
    await install(connection, trigger=True)
    return made


async def jobs(connection: asyncpg.Connection, job_type: str) -> list[asyncpg.Record]:
    return await connection.fetch("select * from worker.job_queue where job_type = $1 order by id", job_type)


async def assert_stats_ran_once(connection: asyncpg.Connection, jobs_expected: int = 1) -> None:
    """Each at its first attempt, and none more than were asked for."""
    found = await jobs(connection, "stats_update")
    assert [(job["status"], job["attempt"]) for job in found] == [("completed", 1)] * jobs_expected


def sent(receiver: Receiver) -> list[set[str]]:
    return [set(call.json["tags"]) for call in receiver.calls]


async def breaks(connection: asyncpg.Connection, table: str) -> None:
    """Writes to this table fail until `mended`."""
    await connection.execute(
        f"""
        create function break() returns trigger language plpgsql as
          $$ begin raise exception 'the disk is full'; end $$;
        create trigger break before insert or update or delete on club.{table}
        for each statement execute function break();
        """
    )


async def mended(connection: asyncpg.Connection) -> None:
    await connection.execute("drop function break() cascade")


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


async def enqueued(connection: asyncpg.Connection, tenant: uuid.UUID, tags: list[list[str]]) -> None:
    """Webhook jobs as finished stats jobs leave them."""
    payloads = [orjson.dumps({"tags": each}).decode() for each in tags]
    await connection.execute(
        "insert into worker.job_queue (job_type, payload, tenant_id)"
        " select 'invalidate_cache', payload::jsonb, $2 from unnest($1::text[]) payload",
        payloads,
        str(tenant),
    )


async def test_many_jobs_become_few_calls_that_carry_all_tags(connection, clubs, config, receiver):
    """2,000 webhook jobs of one club, up to 500 in a call."""
    await enqueued(connection, clubs.tenants[0].id, [["all", f"tag-{number}"] for number in range(2000)])
    async with daemon(config):
        await until(connection, QUIET, seconds=60)
    assert set(receiver.tags) == {"all", *(f"tag-{number}" for number in range(2000))}
    assert len(receiver.calls) < 20
    assert all(len(call.json["tags"]) == len(set(call.json["tags"])) for call in receiver.calls)
    assert {job["status"] for job in await jobs(connection, "invalidate_cache")} == {"completed"}


async def test_after_an_outage_a_few_calls_carry_what_waited_and_what_came(connection, clubs, config, receiver):
    """10,000 jobs, half of them in retry when the other half arrives: they go together, each tag at least once."""
    tenant = clubs.tenants[0].id
    await receiver.stop()
    async with daemon(config):
        await enqueued(connection, tenant, [[f"old-{number}"] for number in range(5_000)])
        await until(connection, "select max(attempt) > 2 from worker.job_queue", seconds=60)
        await enqueued(connection, tenant, [[f"new-{number}"] for number in range(5_000)])
        await receiver.start()
        await until(connection, QUIET, seconds=60)
    assert set(receiver.tags) == {f"{age}-{number}" for age in ("old", "new") for number in range(5_000)}
    assert len(receiver.calls) < 100


async def test_a_club_s_tags_do_not_travel_with_another_s(connection, clubs, config, receiver):
    for number, tenant in enumerate(clubs.tenants):
        await enqueued(connection, tenant.id, [[f"club-{number}"]] * 5)
    async with daemon(config):
        await until(connection, QUIET)
    assert {frozenset(tags) for tags in sent(receiver)} == {frozenset({f"club-{number}"}) for number in range(3)}


async def test_kill_between_settle_and_delivery_loses_no_tag(connection, clubs, config, receiver, daemons):
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


async def test_kill_before_the_claim_loses_no_tag(connection, clubs, config, receiver, daemons):
    """The stats job is settled, its webhook waits for a retry: it is a row, and the next daemon finds it."""
    receiver.plan(Reply(503, headers={"retry-after": "600"}))
    first = await asyncio.to_thread(daemons.start, config.path)
    await finish_match(connection, clubs.tenants[0].id)
    waiting = f"select id from worker.job_queue where job_type = 'invalidate_cache' and status = 'pending' and {FAR}"
    await until(connection, waiting)
    await asyncio.to_thread(first.kill)
    await connection.execute("update worker.job_queue set scheduled_at = now() where status = 'pending'")
    await asyncio.to_thread(daemons.start, config.path)
    await until(connection, QUIET, seconds=60)
    assert sent(receiver) == [TAGS, TAGS]
    await assert_stats_ran_once(connection)


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
