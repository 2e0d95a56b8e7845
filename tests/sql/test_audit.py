"""`audit = true`: each transition is one event. That any sequence of them replays is a promise of the state machine."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, verdict

Session = Callable[..., Awaitable[Queue]]
Event = dict[str, Any]


async def events(queue: Queue, job: int | None = None) -> list[Event]:
    """Event and detail of each, in order."""
    rows = await queue.db.fetch(
        "select event, detail from worker.job_event where $1::bigint is null or job_id = $1 order by id", job
    )
    return [{"event": row["event"], **json.loads(row["detail"])} for row in rows]


async def told(queue: Queue, job: int | None = None) -> list[str]:
    return [event["event"] for event in await events(queue, job)]


async def running(queue: Queue, **columns: Any) -> asyncpg.Record:
    """A claimed job of the audited type, its events so far forgotten."""
    await queue.enqueue("audited", **columns)
    (job,) = await queue.take()
    await queue.db.execute("truncate worker.job_event")
    return job


@pytest.fixture
async def audited(queue: Queue) -> Queue:
    await queue.declare("audited", audit=True)
    return queue


class TestEnqueued:
    async def test_by_a_plain_insert_and_who_did_it(self, audited: Queue, session: Session) -> None:
        app = await session("app")
        job = await app.db.fetchval("insert into worker.job_queue (job_type) values ('audited') returning id")
        who = await app.db.fetchval("select current_user")
        row = await audited.db.fetchrow("select job_id, event, actor, detail from worker.job_event")
        assert tuple(row) == (job, "enqueued", who, '{"to": "pending"}')

    @pytest.mark.parametrize("keys", [{}, {"concurrency_key": "{c}"}, {"unique_key": "{c}"}])
    async def test_by_hundreds_each_once(self, queue: Queue, keys: dict[str, str]) -> None:
        await queue.declare("audited", audit=True, **keys)
        assert await queue.enqueue_many("audited", *({"c": number} for number in range(300))) == 300
        counted = await queue.db.fetch("select job_id, count(*) from worker.job_event group by 1 having count(*) <> 1")
        assert (counted, await queue.count("worker.job_event")) == ([], 300)

    async def test_as_invalid(self, queue: Queue) -> None:
        await queue.declare("audited", audit=True, concurrency_key="{missing}")
        job = await queue.enqueue("audited")
        assert await events(queue, job) == [{"event": "enqueued", "to": "failed", "reason": "invalid"}]

    async def test_not_when_a_holder_is_kept(self, queue: Queue) -> None:
        await queue.declare("audited", audit=True, unique_key="one")
        job = await queue.enqueue("audited", priority=500)
        assert await queue.enqueue("audited", priority=5) == job
        assert await told(queue) == ["enqueued"]

    async def test_not_when_the_transaction_is_undone(self, audited: Queue) -> None:
        transaction = audited.db.transaction()
        await transaction.start()
        await audited.enqueue("audited")
        await transaction.rollback()
        assert await told(audited) == []

    async def test_of_the_audited_ones_among_others_in_one_statement(self, audited: Queue) -> None:
        await audited.declare("plain")
        await audited.db.execute(
            "insert into worker.job_queue (job_type) select unnest(array['plain', 'audited', 'plain', 'unknown'])"
        )
        assert await told(audited) == ["enqueued"]

    async def test_while_its_row_enqueues_another(self, audited: Queue) -> None:
        """The statement in the middle must not swallow the event of the one around it."""
        await audited.db.execute(
            "insert into worker.job_queue (job_type, payload) select 'audited', jsonb_build_object('n', n, 'inner',"
            " worker.enqueue('audited')) from generate_series(1, 3) n"
        )
        assert await told(audited) == ["enqueued"] * 6

    @pytest.mark.parametrize("word", ["", "off"])
    async def test_whatever_the_producer_does_against_it(self, audited: Queue, session: Session, word: str) -> None:
        app = await session("app")
        await app.db.execute(f"set worker.audit = '{word}'")
        undone = f"set_config('worker.audit', '{word}', true)"
        await app.db.execute(f"insert into worker.job_queue (job_type) values ('audited') returning {undone}")
        await app.db.execute("discard all")
        await app.enqueue("audited")
        assert await told(audited) == ["enqueued"] * 2

    async def test_as_a_follow_up_with_its_parent(self, queue: Queue) -> None:
        await queue.declare_all(
            {"name": "first", "then": ["audited"], "announces": "result"}, {"name": "audited", "audit": True}
        )
        parent = await queue.enqueue("first")
        (job,) = await queue.take(types=["first"])
        await queue.settle(verdict(job))
        assert await events(queue) == [{"event": "enqueued", "to": "pending", "parent": parent}]

    async def test_of_a_type_that_is_not_audited_leaves_nothing(self, queue: Queue) -> None:
        await queue.declare("plain", audit=False)
        await queue.enqueue("plain")
        await queue.enqueue_many("plain", {}, {})
        for job in await queue.take():
            await queue.settle(verdict(job))
        assert await told(queue) == []


class TestClaimed:
    async def test_with_claim_attempt_and_process(self, audited: Queue) -> None:
        job = await audited.enqueue("audited")
        (claimed,) = await audited.take()
        assert (await events(audited, job))[1:] == [
            {"event": "claimed", "from": "pending", "to": "running", "claim": claimed["claim"], "attempt": 1,
             "process": audited.me}
        ]  # fmt: skip

    async def test_each_once_among_others(self, audited: Queue) -> None:
        await audited.declare("plain")
        for number in range(6):
            await audited.enqueue(["plain", "audited"][number % 2])
        assert len((await audited.claim()).ids) == 6
        assert sorted(await told(audited)) == ["claimed"] * 3 + ["enqueued"] * 3

    async def test_not_when_it_is_only_parked(self, queue: Queue) -> None:
        await queue.declare("audited", audit=True, concurrency_key="line")
        await queue.enqueue_many("audited", {}, {})
        assert len((await queue.claim()).ids) == 1
        assert (await told(queue)).count("claimed") == 1

    async def test_by_the_bench_too(self, audited: Queue) -> None:
        job = await audited.enqueue("audited")
        me = await audited.register()
        await audited.db.fetch("select * from worker.claim_job($1, 1, $2)", me, job)
        assert await told(audited) == ["enqueued", "claimed"]


SETTLED = [
    ("completed", {}, "completed", None),
    ("skipped", {"reason": "no_op"}, "skipped", "no_op"),
    ("failed", {"reason": "exhausted", "error": "no"}, "failed", "exhausted"),
    ("cancelled", {"reason": "not wanted"}, "cancelled", "not wanted"),
    ("pending", {"error": "no", "delay": 5.0}, "retried", None),
    ("pending", {"error": "it died", "counted": False}, "retried", None),
    ("pending", {"counted": False, "snoozed": True, "delay": 5.0}, "snoozed", None),
    ("pending", {"counted": False}, "released", None),
]


class TestSettled:
    @pytest.mark.parametrize(("status", "fields", "event", "reason"), SETTLED)
    async def test_is_one_event(
        self, audited: Queue, status: str, fields: dict[str, Any], event: str, reason: str | None
    ) -> None:
        job = await running(audited)
        await audited.settle(verdict(job, status, **fields))
        expected = {"event": event, "from": "running", "to": status, "claim": job["claim"], "attempt": 1,
                    "process": audited.me}  # fmt: skip
        assert await events(audited) == [expected | ({"reason": reason} if reason else {})]

    async def test_of_a_lost_claim_leaves_nothing(self, audited: Queue) -> None:
        job = await running(audited)
        stale = verdict({"id": job["id"], "claim": job["claim"] + 1_000_000})
        await audited.settle(stale, stale)
        assert await told(audited) == []

    async def test_beside_a_lost_claim_of_the_same_job_is_one_event(self, audited: Queue) -> None:
        job = await running(audited)
        stale = verdict({"id": job["id"], "claim": job["claim"] + 1_000_000}, "failed")
        await audited.settle(stale, verdict(job))
        assert await told(audited) == ["completed"]

    async def test_by_hundreds_each_once(self, audited: Queue) -> None:
        await audited.enqueue_many("audited", *({} for _ in range(300)))
        await audited.settle(*(verdict(job) for job in await audited.take(500)))
        assert await told(audited) == ["enqueued"] * 300 + ["claimed"] * 300 + ["completed"] * 300

    async def test_asked_to_end_is_a_request_and_then_the_end(self, audited: Queue) -> None:
        job = await running(audited)
        await audited.db.fetchval("select worker.cancel($1, 'enough')", job["id"])
        await audited.settle(verdict(job, "pending", error="no"))
        assert [(event["event"], event.get("to"), event["reason"]) for event in await events(audited)] == [
            ("cancel", None, "enough"),
            ("cancelled", "cancelled", "enough"),
        ]

    async def test_of_a_claim_whose_answer_never_arrived_is_unclaimed(self, audited: Queue) -> None:
        job = await running(audited)
        await audited.db.fetchval("select worker.unclaim($1, $2)", audited.me, audited.batch)
        (event,) = await events(audited)
        assert (event["event"], event["to"], event["claim"]) == ("unclaimed", "pending", job["claim"])


class TestByPeople:
    async def test_a_pending_job_is_cancelled_by_one_event(self, audited: Queue) -> None:
        job = await audited.enqueue("audited")
        await audited.db.fetchval("select worker.cancel($1)", job)
        assert await told(audited, job) == ["enqueued", "cancel"]

    async def test_a_retry_is_one_event(self, audited: Queue) -> None:
        job = await running(audited)
        await audited.settle(verdict(job, "failed", reason="exhausted"))
        await audited.db.fetchval("select worker.retry($1)", job["id"])
        assert await told(audited) == ["failed", "retry"]

    async def test_a_rescue_is_one_event(self, audited: Queue) -> None:
        job = await running(audited)
        me = await audited.register()
        (again,) = await audited.bury(audited.me, by=me)
        await audited.settle(verdict(again, "pending", error="the process that ran it died"), me=me)
        assert await told(audited, job["id"]) == ["rescue", "retried"]

    async def test_a_waiting_job_that_is_replaced_says_by_whom(self, queue: Queue, session: Session) -> None:
        await queue.declare("audited", audit=True, unique_key="one")
        job = await queue.enqueue("audited", {"n": 1})
        app = await session("app")
        assert await app.enqueue("audited", {"n": 2}, on_conflict="replace") == job
        row = await queue.db.fetchrow("select event, actor, detail from worker.job_event order by id desc limit 1")
        who = await app.db.fetchval("select current_user")
        assert tuple(row) == ("replaced", who, '{"to": "pending", "from": "pending"}')


class TestExpired:
    @pytest.fixture
    async def late(self, queue: Queue) -> int:
        """A job whose time is over, of a type with a unique key."""
        await queue.declare("audited", audit=True, unique_key="one", expires=60)
        await queue.clock(NOON)
        job = await queue.enqueue("audited")
        await queue.db.execute("truncate worker.job_event")
        await queue.clock(NOON + timedelta(seconds=61))
        return job

    async def test_by_the_sweep(self, queue: Queue, late: int) -> None:
        assert await queue.sweep() == 1
        assert await events(queue) == [{"event": "expired", "from": "pending", "to": "skipped", "reason": "expired"}]

    async def test_by_the_next_of_its_key(self, queue: Queue, late: int) -> None:
        fresh = await queue.enqueue("audited")
        assert (await told(queue, late), await told(queue, fresh)) == (["expired"], ["enqueued"])


class TestToRead:
    async def test_show_job_has_them_and_history_in_columns(self, audited: Queue, session: Session) -> None:
        id = await audited.enqueue("audited", tenant_id="t1")
        (job,) = await audited.take()
        await audited.settle(verdict(job, "failed", reason="exhausted"))
        reader = await session("reader")
        shown = json.loads(await reader.db.fetchval("select worker.show_job($1)", id))
        assert [event["event"] for event in shown["events"]] == ["enqueued", "claimed", "failed"]
        rows = await reader.db.fetch(
            "select job_type, tenant_id, event, from_status, to_status, attempt, claim, process, reason"
            " from worker.history where job_id = $1 order by id", id,
        )  # fmt: skip
        claim, me = job["claim"], audited.me
        assert [tuple(row) for row in rows] == [
            ("audited", "t1", "enqueued", None, "pending", None, None, None, None),
            ("audited", "t1", "claimed", "pending", "running", 1, claim, me, None),
            ("audited", "t1", "failed", "running", "failed", 1, claim, me, "exhausted"),
        ]

    async def test_no_payload_is_in_them(self, audited: Queue) -> None:
        await audited.enqueue("audited", {"secret": "bdb1ee2d"})
        (job,) = await audited.take()
        await audited.settle(verdict(job, "failed", result='{"secret": "bdb1ee2d"}', error="bdb1ee2d"))
        assert not await audited.db.fetchval("select bool_or(e::text like '%bdb1ee2d%') from worker.job_event e")

    async def test_they_go_with_the_job(self, audited: Queue) -> None:
        job = await running(audited)
        await audited.settle(verdict(job))
        assert await audited.count("worker.job_event") == 1
        assert (await audited.db.fetchrow("select * from worker.prune('{\"completed\": -1}')"))["gone"] == 1
        assert await audited.count("worker.job_event") == 0
