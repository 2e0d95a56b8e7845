"""Sweep: what heals by itself."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.sql.conftest import NOON, Queue, verdict

Session = Callable[..., Awaitable[Queue]]
HOUR = timedelta(hours=1)


class TestExpired:
    async def test_pending_rows_past_their_expiry_are_ended_and_no_others(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare()
        past = await queue.enqueue(expires_at=NOON - HOUR)
        exactly = await queue.enqueue(expires_at=NOON)
        later = await queue.enqueue(expires_at=NOON + HOUR)
        never = await queue.enqueue()
        assert await queue.sweep() == 2
        assert await queue.statuses() == {past: "skipped", exactly: "skipped", later: "pending", never: "pending"}
        row = await queue.row(past)
        assert (row["finish_reason"], row["finished_at"], row["queued"]) == ("expired", NOON, False)

    async def test_a_running_job_is_left_to_finish(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare()
        await queue.enqueue(expires_at=NOON + HOUR)
        (job,) = await queue.take()
        await queue.clock(NOON + 2 * HOUR)
        assert await queue.sweep() == 0
        assert await queue.settle(verdict(job)) == {job["id"]: "completed"}

    async def test_a_whole_line_of_expired_rows_does_not_hold_up_the_living_one_behind(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report", concurrency_key="line")
        for _ in range(5):
            await queue.enqueue("report", expires_at=NOON + HOUR)
        living = await queue.enqueue("report", priority=900)
        (job,) = await queue.take()
        await queue.clock(NOON + 2 * HOUR)
        await queue.settle(verdict(job))
        await queue.sweep()
        assert (await queue.claim()).ids == [living]

    async def test_a_row_that_somebody_locks_is_passed_by(self, queue: Queue, session: Session) -> None:
        await queue.declare()
        await queue.clock(NOON)
        locked, free = await queue.enqueue(expires_at=NOON), await queue.enqueue(expires_at=NOON)
        other = await session()
        async with other.db.transaction():
            await other.db.execute("select from worker.job_queue where id = $1 for update", locked)
            assert await queue.sweep() == 1
        assert await queue.statuses() == {locked: "pending", free: "skipped"}


class TestParked:
    """A parked row whose key is free is queued again, whatever became of the row before it."""

    async def line(self, queue: Queue, length: int = 3) -> list[int]:
        """A line whose first row ran and settled, so that its second row is queued and the others are parked."""
        await queue.declare("report", concurrency_key="line")
        ids = [await queue.enqueue("report") for _ in range(length + 1)]
        (job,) = await queue.take()
        await queue.settle(verdict(job))
        flags = [((await queue.row(id))["queued"], (await queue.row(id))["parked"]) for id in ids[1:]]
        assert flags == [(True, False)] + [(False, True)] * (length - 1)
        return ids[1:]

    @pytest.mark.parametrize(
        "end_of_head",
        [
            "select worker.cancel($1)",
            "delete from worker.job_queue where id = $1",
            "update worker.job_queue set expires_at = '2001-01-01' where id = $1",
            "update worker.job_queue set scheduled_at = '8000-01-01' where id = $1",
        ],
    )
    async def test_the_head_was_cancelled_deleted_expired_or_postponed(self, queue: Queue, end_of_head: str) -> None:
        head, second, third = await self.line(queue)
        await queue.db.execute(end_of_head, head)
        assert await queue.sweep() >= 1
        assert (await queue.claim()).ids == [second]
        assert (await queue.row(third))["parked"] is True

    async def test_the_holder_itself_was_deleted(self, queue: Queue) -> None:
        head, second, third = await self.line(queue)
        assert (await queue.claim()).ids == [head]
        await queue.db.execute("delete from worker.job_queue where id = $1", head)
        await queue.sweep()
        assert (await queue.claim()).ids == [second]
        assert await queue.db.fetch("select key, job_id from worker.key_slot") == [("line", second)]
        assert (await queue.row(third))["parked"] is True

    async def test_a_held_line_is_left_alone(self, queue: Queue) -> None:
        head, *_ = await self.line(queue)
        assert (await queue.claim()).ids == [head]
        assert await queue.sweep() == 0
        assert (await queue.claim()).ids == []

    async def test_every_line_gets_its_own_head(self, queue: Queue) -> None:
        await queue.declare("report", concurrency_key="{line}")
        for line in "abc":
            for _ in range(3):
                await queue.enqueue("report", {"line": line})
        await queue.claim()
        await queue.db.execute("update worker.key_slot set job_id = 0 where key = 'b'")
        await queue.db.execute("delete from worker.job_queue where status = 'running' and concurrency_key <> 'c'")
        assert await queue.sweep() == 2
        assert {job["concurrency_key"] for job in await queue.take()} == {"a", "b"}


class TestNotes:
    """worker.kept: an enqueue that was answered with a waiting job leaves a note there (see test_enqueue too)."""

    async def orphan(self, queue: Queue, number: int) -> None:
        """A note whose job started before the note was committed."""
        job = await queue.enqueue("report", {"number": number})
        await queue.claim(types=["report"])
        await queue.db.execute("insert into worker.kept (job_id, enqueued_by) values ($1, current_user)", job)

    async def test_many_notes_of_a_waiting_job_do_not_hide_one_that_outlived_its_job(self, queue: Queue) -> None:
        await queue.declare("letter", unique_key="one")
        waiting = await queue.enqueue("letter")
        for _ in range(3):
            await queue.enqueue_many("letter", *[{}] * 400)
        await queue.declare("report", unique_key="{number}")
        await self.orphan(queue, 1)
        await queue.sweep()
        await queue.sweep()
        assert [job["payload"] for job in await queue.take(types=["report"])] == ['{"number": 1}']
        assert await queue.count("worker.kept") == 0
        assert (await queue.row(waiting))["status"] == "pending"

    async def test_a_key_in_a_producers_open_transaction_stops_neither_the_sweep_nor_other_notes(
        self, queue: Queue, session: Session
    ) -> None:
        await queue.clock(NOON)
        await queue.declare("report", unique_key="{number}")
        expired = await queue.enqueue("plain", expires_at=NOON)
        for number in (1, 2, 3):
            await self.orphan(queue, number)
        producer = await session()
        change = producer.db.transaction()
        await change.start()
        await producer.enqueue("report", {"number": 2})
        assert await queue.sweep() == 3
        assert (await queue.row(expired))["status"] == "skipped"
        assert [job["payload"] for job in await queue.take()] == ['{"number": 1}', '{"number": 3}']
        await change.rollback()
        assert await queue.sweep() == 1
        assert [job["payload"] for job in await queue.take()] == ['{"number": 2}']

    async def test_a_sweep_at_work_on_a_note_does_not_hold_up_the_claim_of_its_job(
        self, queue: Queue, session: Session
    ) -> None:
        await queue.declare("report", unique_key="one")
        job = await queue.enqueue("report")
        await queue.enqueue("report")
        sweeper = await session()
        change = sweeper.db.transaction()
        await change.start()
        await sweeper.sweep()
        assert (await queue.claim()).ids == [job]
        await change.commit()
        await queue.sweep()
        assert await queue.statuses() == {job: "running"}

    @pytest.mark.parametrize("on_conflict", ["keep", "refuse", "replace"])
    async def test_meets_a_newer_waiting_job_as_keep_whatever_the_type_declares(
        self, queue: Queue, on_conflict: str
    ) -> None:
        await queue.declare("report", unique_key="{number}", on_conflict=on_conflict)
        await self.orphan(queue, 1)
        newer = await queue.enqueue("report", {"number": 1, "newer": True})
        assert await queue.sweep() == 0
        assert [(job["id"], job["payload"]) for job in await queue.take()] == [(newer, '{"newer": true, "number": 1}')]
        await queue.sweep()
        assert (await queue.claim()).ids == []

    async def test_the_job_belongs_to_whoever_left_the_note(self, queue: Queue, session: Session) -> None:
        await queue.declare("report", unique_key="one")
        app, other = await session("app"), await session("other_app")
        held = await other.enqueue("report")
        change = app.db.transaction()
        await change.start()
        assert await app.enqueue("report") == held
        await queue.claim()
        await change.commit()
        assert await queue.sweep() == 1
        (born,) = await app.db.fetch("select id, enqueued_by = current_user as mine from worker.job_queue")
        assert born["mine"]
        assert await other.db.fetch("select from worker.job_queue where id = $1", born["id"]) == []
        assert await app.db.fetchval("select worker.cancel($1)", born["id"]) == "cancelled"

    async def test_a_tenants_note_becomes_a_job_with_what_tenants_may_not_set(
        self, queue: Queue, session: Session, roles: dict[str, str]
    ) -> None:
        await queue.declare("report", unique_key="one", producers=["app", "tenant"])
        tenant = await session("tenant", **{"request.jwt.claims": '{"tenant_id": "t1"}'})
        held = await queue.enqueue("report", tenant_id="t1", source="nightly", max_attempts=3)
        change = tenant.db.transaction()
        await change.start()
        assert await tenant.enqueue("report") == held
        await queue.claim()
        await change.commit()
        assert await queue.sweep() == 1
        born = await queue.row(await queue.db.fetchval("select max(id) from worker.job_queue"))
        assert (born["enqueued_by"], born["tenant_id"]) == (roles["tenant"], "t1")
        assert (born["source"], born["max_attempts"]) == ("nightly", 3)

    async def test_a_note_that_meets_a_waiting_job_stays_its_enqueuers(self, queue: Queue, session: Session) -> None:
        """The sweep is itself answered with a waiting job, and leaves a note: not one of its own."""
        await queue.declare("report", unique_key="{number}")
        await self.orphan(queue, 1)
        app = await session("app")
        await queue.db.execute("update worker.kept set enqueued_by = $1", await app.db.fetchval("select current_user"))
        await queue.enqueue("report", {"number": 1})
        await queue.sweep()
        (left,) = await queue.db.fetch("select enqueued_by from worker.kept")
        assert left["enqueued_by"] == await app.db.fetchval("select current_user")

    async def test_nobody_enqueues_in_anothers_name(
        self, queue: Queue, session: Session, roles: dict[str, str]
    ) -> None:
        await queue.declare("report")
        app = await session("app", **{"worker.enqueuer": roles["other_app"]})
        assert (await queue.row(await app.enqueue("report")))["enqueued_by"] == roles["app"]

    async def test_a_note_of_a_job_that_is_gone_is_thrown_away(self, queue: Queue) -> None:
        await queue.db.execute("insert into worker.kept (job_id, enqueued_by) values (77, current_user)")
        assert await queue.sweep() == 0
        assert await queue.count("worker.kept") == 0

    async def test_expiry_ends_a_job_together_with_those_it_answered(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report", unique_key="one", expires=60)
        await queue.enqueue("report")
        await queue.enqueue("report")
        await queue.clock(NOON + HOUR)
        await queue.sweep()
        assert list((await queue.statuses()).values()) == ["skipped"]
