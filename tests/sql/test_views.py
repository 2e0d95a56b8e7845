"""Views: what people read."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, verdict

Session = Callable[..., Awaitable[Queue]]
SECOND = timedelta(seconds=1)


async def seen(queue: Queue, id: int) -> asyncpg.Record:
    row = await queue.db.fetchrow("select * from worker.jobs where id = $1", id)
    assert row is not None
    return row


class TestJobs:
    async def test_the_label_says_what_a_person_would(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report", concurrency_key="{k}")
        labels = {}

        async def note(wanted: str, id: int) -> None:
            labels[wanted] = (await seen(queue, id))["label"]

        await note("scheduled", await queue.enqueue("report", {"k": 0}, delay=SECOND))
        first, second = [await queue.enqueue("report", {"k": 1}) for _ in range(2)]
        await note("waiting", first)
        (job,) = await queue.take()
        await note("running", first)
        await note("behind its key", second)
        await queue.settle(verdict(job, "pending", delay=9, counted=False, snoozed=True))
        await note("snoozed", first)
        (job,) = await queue.take()
        await queue.settle(verdict(job, "pending", delay=9, error="E"))
        await note("retrying", second)
        for number, status in enumerate(("completed", "skipped", "failed", "cancelled"), start=2):
            id = await queue.enqueue("report", {"k": number})
            await queue.settle(*[verdict(job, status) for job in await queue.take()])
            await note(status, id)
        assert labels == {wanted: wanted for wanted in labels}
        assert len(labels) == 10

    async def test_wait_duration_and_next_run(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report")
        id = await queue.enqueue("report", delay=10 * SECOND)

        async def times(after: int) -> tuple[object, ...]:
            await queue.clock(NOON + after * SECOND)
            row = await seen(queue, id)
            return row["wait"], row["duration"], row["next_run"]

        assert await times(0) == (0 * SECOND, None, NOON + 10 * SECOND)
        assert await times(13) == (3 * SECOND, None, NOON + 10 * SECOND)
        (job,) = await queue.take()
        assert await times(20) == (3 * SECOND, 7 * SECOND, None)
        await queue.settle(verdict(job))
        assert await times(99) == (3 * SECOND, 7 * SECOND, None)

    async def test_last_error_and_children(self, queue: Queue) -> None:
        await queue.declare("report")
        parent = await queue.enqueue("report")
        for text in ("first", "second"):
            await queue.settle(*[verdict(job, "pending", error=text) for job in await queue.take()])
        await queue.db.execute("insert into worker.job_queue (job_type, parent_id) values ('a', $1), ('b', $1)", parent)
        row = await seen(queue, parent)
        assert (row["last_error"], row["children"]) == ("second", 2)

    @pytest.mark.parametrize(("who", "rows"), [("reader", 1), ("operator", 1), ("app", 0), ("tenant", 0)])
    async def test_shows_each_role_its_own_rows(self, queue: Queue, session: Session, who: str, rows: int) -> None:
        await queue.enqueue("report", tenant_id="t1")
        assert await (await session(who)).db.fetchval("select count(*) from worker.jobs") == rows


class TestStats:
    async def test_count_rate_and_percentiles_per_type(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report")
        await queue.enqueue_many("report", *[{}] * 10)
        await queue.clock(NOON + 4 * SECOND)
        jobs = await queue.take(8)
        await queue.clock(NOON + 6 * SECOND)
        said = ["completed", "completed", "completed", "failed", "skipped", "cancelled"]
        await queue.settle(*map(verdict, jobs, said))
        (row,) = await queue.db.fetch("select * from worker.job_stats")
        counts = ("pending", "running", "completed", "skipped", "failed", "cancelled")
        assert [row[name] for name in counts] == [2, 2, 3, 1, 1, 1]
        assert (float(row["success_rate"]), row["duration_p50"], row["duration_p95"]) == (75.0, 2.0, 2.0)
        assert (row["wait_p50"], row["last_finished_at"]) == (4.0, NOON + 6 * SECOND)

    async def test_look_back_a_day_or_as_far_as_the_setting_says(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.clock(NOON)
        for _ in range(2):
            await queue.enqueue("report")
        (job,) = await queue.take(1)
        await queue.settle(verdict(job))
        await queue.clock(NOON + timedelta(hours=25))
        look = "select completed, pending from worker.job_stats"
        assert await queue.db.fetch(look) == [(0, 1)], "what is open counts, however old"
        await queue.db.execute("set worker.stats_window = '2 days'")
        assert await queue.db.fetch(look) == [(1, 1)]

    async def test_nothing_finished_is_no_rate(self, queue: Queue) -> None:
        await queue.enqueue("report")
        assert await queue.db.fetchval("select success_rate from worker.job_stats") is None


class TestTypes:
    async def test_tell_how_each_type_stands_undeclared_ones_too(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("idle", enabled=False)
        await queue.declare("report", concurrency_key="line")
        await queue.db.execute("update worker.job_type set paused = true where name = 'idle'")
        for _ in range(3):
            await queue.enqueue("report")
        await queue.claim()
        await queue.enqueue("report", delay=60 * SECOND)
        await queue.enqueue("stray")
        alive = await queue.register(["report"])
        silent, stopped, dead = [await queue.register(["report"], lease=1) for _ in range(3)]
        await queue.db.execute("select worker.leave($1), worker.mark_dead($2, $3)", stopped, alive, dead)
        await queue.clock(NOON + 5 * SECOND)
        assert silent
        columns = ("job_type", "declared", "enabled", "paused", "waiting", "scheduled", "parked", "running", "daemons")
        rows = await queue.db.fetch("select * from worker.type_status order by job_type")
        assert [tuple(row[name] for name in columns) for row in rows] == [
            ("idle", True, False, True, 0, 0, 0, 0, 0),
            ("report", True, True, False, 0, 1, 2, 1, 1),
            ("stray", False, False, False, 1, 0, 0, 0, 0),
        ]
        assert [row["oldest_due"] for row in rows] == [None, None, 5 * SECOND]


class TestDeclare:
    """worker.declare, whose answers `worker run` logs."""

    async def test_says_what_is_new_or_changed_and_is_silent_about_the_rest(self, queue: Queue) -> None:
        one, two = {"name": "one", "digest": "1"}, {"name": "two", "digest": "1"}
        assert await queue.declare_all(one, two) == [("one", "declared"), ("two", "declared")]
        assert await queue.declare_all(one, two) == []
        assert await queue.declare_all(two | {"digest": "2", "priority": 5}, one) == [("two", "changed")]
        assert await queue.db.fetch("select name, priority from worker.job_type order by name") == [
            ("one", 100),
            ("two", 5),
        ]

    async def test_touches_neither_pauses_nor_types_it_does_not_name(self, queue: Queue) -> None:
        await queue.declare("one")
        await queue.declare("two", priority=7)
        await queue.db.execute("update worker.job_type set paused = true")
        await queue.declare("one", priority=3)
        rows = await queue.db.fetch("select name, priority, paused from worker.job_type order by name")
        assert rows == [("one", 3, True), ("two", 7, True)]
