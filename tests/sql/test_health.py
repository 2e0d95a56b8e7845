"""How the queue is: depth, ages, processes, transactions; and what the connection can do."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, refused, verdict

Session = Callable[..., Awaitable[Queue]]
SECOND = timedelta(seconds=1)


async def health(queue: Queue) -> dict[str, Any]:
    """The one row, spans in seconds, and the types."""
    row = dict(await queue.db.fetchrow("select * from worker.queue_health"))
    found = {name: each.total_seconds() if isinstance(each, timedelta) else each for name, each in row.items()}
    return found | {"types": json.loads(await queue.db.fetchval("select worker.health()"))["types"]}


async def of(queue: Queue, job_type: str) -> dict[str, Any]:
    (row,) = [row for row in (await health(queue))["types"] if row["job_type"] == job_type]
    return row


async def test_an_empty_queue(queue: Queue) -> None:
    found = await health(queue)
    assert (found["pending"], found["running"], found["oldest_due"], found["types"]) == (0, 0, None, [])
    assert set(json.loads(await queue.db.fetchval("select worker.health()"))) == {
        "oldest_transaction", "oldest_transaction_by", "types", "processes", "schedules", "tables",
        "notification_queue",
    }  # fmt: skip
    assert found["notification_queue_use"] == 0


async def test_depth_by_state_and_ages(queue: Queue) -> None:
    await queue.clock(NOON)
    await queue.declare("mail")
    await queue.declare("report", concurrency_key="{k}")
    await queue.enqueue("mail", delay=10 * SECOND)
    await queue.enqueue("mail", delay=3600 * SECOND)
    for _ in range(3):
        await queue.enqueue("report", {"k": 1})
    await queue.take()  # one runs, the others are parked
    await queue.clock(NOON + 30 * SECOND)
    assert await of(queue, "mail") == {
        "job_type": "mail", "declared": True, "pending": 2, "waiting": 1, "scheduled": 1, "parked": 0, "running": 0,
        "oldest_due": 20, "oldest_running": None,
    }  # fmt: skip
    assert await of(queue, "report") == {
        "job_type": "report", "declared": True, "pending": 2, "waiting": 0, "scheduled": 0, "parked": 2, "running": 1,
        "oldest_due": None, "oldest_running": 30,
    }  # fmt: skip
    found = await health(queue)
    totals = ("pending", "waiting", "scheduled", "parked", "running", "oldest_due", "oldest_running", "undeclared")
    assert [found[name] for name in totals] == [4, 1, 1, 2, 1, 20, 30, 0]


async def test_it_agrees_with_the_dear_view(queue: Queue) -> None:
    await queue.declare("report", concurrency_key="{k}")
    for number in range(40):
        await queue.enqueue("report", {"k": number % 7}, delay=(number % 3) * 3600 * SECOND)
        await queue.db.execute("insert into worker.job_queue (job_type) values ('undeclared')")
    await queue.settle(*[verdict(job) for job in (await queue.take(10))[:5]])
    columns = "job_type, waiting, scheduled, parked, running"
    cheap = await queue.db.fetch(f"select {columns} from worker.queue_depth order by 1")
    assert cheap == await queue.db.fetch(f"select {columns} from worker.type_status order by 1")
    assert (await health(queue))["undeclared"] == 40


async def test_running_rows_of_the_dead_count_until_they_are_rescued(queue: Queue) -> None:
    await queue.declare()
    me, other = await queue.register(), await queue.register()
    await queue.enqueue()
    await queue.take(me=other)
    assert await queue.db.fetchval("select worker.mark_dead($1, $2)", me, other)
    found = await health(queue)
    assert (found["running"], found["processes_dead"], found["processes_unrescued"]) == (1, 1, 1)
    await queue.settle(*[verdict(job, "failed") for job in await queue.rescue(me)], me=me)
    await queue.rescue(me)
    found = await health(queue)
    assert (found["running"], found["processes_dead"], found["processes_unrescued"]) == (0, 1, 0)


async def test_processes_alive_silent_and_gone(queue: Queue) -> None:
    await queue.clock(NOON)
    await queue.register(lease=10)
    await queue.register(lease=3600)
    await queue.db.execute("select worker.leave($1)", await queue.register(lease=3600))
    await queue.clock(NOON + 60 * SECOND)
    found = await health(queue)
    assert (found["processes_alive"], found["processes_silent"], found["processes_dead"]) == (1, 1, 0)


async def test_the_oldest_transaction(queue: Queue, session: Session) -> None:
    assert (await health(queue))["oldest_transaction"] == 0
    other = await session()
    await other.db.execute("begin")
    first = (await health(queue))["oldest_transaction"]
    assert first > 0
    assert (await health(queue))["oldest_transaction"] > first
    await other.db.execute("commit")
    assert (await health(queue))["oldest_transaction"] == 0


async def test_finished_rows_are_never_looked_at(queue: Queue) -> None:
    """Blocks are counted, not time: 20,000 finished rows cost nothing."""
    await queue.declare()
    await queue.register()

    async def blocks() -> int:
        await queue.db.execute("select worker.health()")
        (plan,) = json.loads(await queue.db.fetchval("explain (analyze, buffers, format json) select worker.health()"))
        return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])

    before = await blocks()
    await queue.db.execute(
        "insert into worker.job_queue (job_type) select 'plain' from generate_series(1, 20000);"
        "update worker.job_queue set status = 'completed', queued = false, claimed_by = 1, batch = 0, claim = 1,"
        " started_at = now(), finished_at = now();"
    )
    await queue.db.execute("vacuum analyze worker.job_queue")
    await queue.db.execute("update worker.process set open_batch = 1")
    assert await blocks() < before + 50


@pytest.mark.parametrize("who", ["reader", "operator", "runner"])
async def test_who_may_look(queue: Queue, session: Session, who: str) -> None:
    await queue.declare()
    await queue.enqueue()
    looking = await session(who)
    assert (await health(looking))["pending"] == 1
    assert await looking.db.fetchval("select pending from worker.queue_health") == 1


@pytest.mark.parametrize("who", ["app", "tenant", "nobody"])
async def test_who_may_not(session: Session, who: str) -> None:
    looking = await session(who)
    for asked in (
        "select worker.health()",
        "select * from worker.queue_health",
        "select worker.profile()",
        "select worker.oldest_transaction()",
        "select * from worker.queue_depth",
    ):
        with refused("42501"):
            await looking.db.execute(asked)


async def test_the_profile(queue: Queue, session: Session) -> None:
    told = json.loads(await queue.db.fetchval("select worker.profile()"))
    assert told["pid"] == queue.pid  # no pooler in between
    assert (told["tls"], told["read_only"], told["sees_sessions"]) == (False, False, True)
    assert told["server"] == await queue.db.fetchval("show server_version")
    assert json.loads(await (await session("runner")).db.fetchval("select worker.profile()"))["sees_sessions"] is False


async def test_views_have_comments(connection: asyncpg.Connection) -> None:
    for name in ("queue_health", "queue_depth"):
        assert await connection.fetchval("select obj_description($1::regclass, 'pg_class')", f"worker.{name}")


async def test_schedules_that_are_late_and_those_that_are_not(queue: Queue) -> None:
    await queue.clock(NOON)
    given = [{"name": name, "cron": "@daily", "job": "plain", "digest": name, "enabled": name != "off"} for name in
             ("late", "soon", "never_ran", "paused", "off")]  # fmt: skip
    await queue.db.execute("select worker.declare_schedules($1::jsonb, '{}')", json.dumps(given))
    await queue.db.execute("update worker.schedule set next_at = $1 where name <> 'never_ran'", NOON - 90 * SECOND)
    await queue.db.execute("update worker.schedule set next_at = $1 where name = 'soon'", NOON + SECOND)
    await queue.db.execute("update worker.schedule set paused = true where name = 'paused'")
    found = json.loads(await queue.db.fetchval("select worker.health()"))["schedules"]
    late = {each["name"]: each["late"] for each in found}
    assert late == {"late": 90, "soon": 0, "never_ran": 0, "paused": None}


async def test_what_nobody_declared_is_one_type(queue: Queue) -> None:
    await queue.declare("mail")
    await queue.db.execute(
        "insert into worker.job_queue (job_type) select 'stranger_' || n from generate_series(1, 50) n"
    )
    await queue.enqueue("mail")
    found = (await health(queue))["types"]
    assert [(each["job_type"], each["declared"], each["pending"]) for each in found] == [
        ("mail", True, 1), ("other", False, 50),
    ]  # fmt: skip


async def test_tables_have_sizes(queue: Queue, session: Session) -> None:
    reader = await session("reader")
    rows = await reader.db.fetch("select * from worker.table_sizes order by name")
    assert [row["name"] for row in rows] == ["job_event", "job_queue", "job_step"]
    assert all(row["index_bytes"] > 0 for row in rows)
