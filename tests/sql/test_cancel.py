"""Cancel: a pending job ends at once, a running one is asked, a final one stays as it is."""

from collections.abc import Awaitable, Callable

import pytest

from tests.sql.conftest import NOON, Queue, blocked, refused, verdict

Session = Callable[..., Awaitable[Queue]]


async def cancel(queue: Queue, id: int, reason: str | None = None) -> str:
    return await queue.db.fetchval("select worker.cancel($1, $2)", id, reason)


class TestPending:
    async def test_ends_at_once_and_frees_its_unique_key(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report", unique_key="one")
        job = await queue.enqueue("report")
        assert await cancel(queue, job, "not needed") == "cancelled"
        row = await queue.row(job)
        assert (row["status"], row["finish_reason"], row["finished_at"]) == ("cancelled", "not needed", NOON)
        assert (row["queued"], row["parked"], row["trouble"], row["held_key"]) == (False, False, True, None)
        assert (await queue.claim()).ids == []
        assert await queue.enqueue("report") != job

    async def test_a_parked_one_too(self, queue: Queue) -> None:
        await queue.declare("report", concurrency_key="line")
        await queue.enqueue("report")
        parked = await queue.enqueue("report")
        await queue.claim()
        assert await cancel(queue, parked) == "cancelled"
        assert (await queue.row(parked))["parked"] is False

    async def test_is_written_down_with_who_did_it(self, queue: Queue, session: Session) -> None:
        app = await session("app")
        job = await app.enqueue("report")
        await cancel(app, job, "wrong")
        (event,) = await queue.db.fetch("select job_id, event, actor, detail from worker.job_event")
        who = await app.db.fetchval("select current_user")
        assert event == (job, "cancel", who, '{"was": "pending", "reason": "wrong"}')

    async def test_does_not_come_back_through_the_note_of_an_enqueue_it_answered(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one")
        job = await queue.enqueue("report")
        assert await queue.enqueue("report") == job
        await cancel(queue, job)
        await queue.sweep()
        assert await queue.statuses() == {job: "cancelled"}


class TestRunning:
    async def test_is_asked_and_the_next_beat_hears_of_it(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.enqueue("report")
        (job,) = await queue.take()
        assert await cancel(queue, job["id"], "first") == "running"
        beat = await queue.db.fetchrow("select * from worker.beat($1, 1)", queue.me)
        assert (beat["alive"], beat["stops"]) == (True, [job["claim"]])

    async def test_the_first_request_stands(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.enqueue("report")
        (job,) = await queue.take()
        await queue.clock(NOON)
        await cancel(queue, job["id"], "first")
        await queue.clock()
        await cancel(queue, job["id"], "second")
        row = await queue.row(job["id"])
        assert (row["cancel_requested_at"], row["cancel_reason"]) == (NOON, "first")

    @pytest.mark.parametrize(
        ("said", "becomes"),
        [
            ("pending", "cancelled"),
            ("completed", "completed"),
            ("skipped", "skipped"),
            ("failed", "failed"),
            ("cancelled", "cancelled"),
        ],
    )
    async def test_wins_over_every_way_back_but_over_no_end(self, queue: Queue, said: str, becomes: str) -> None:
        await queue.declare("report", unique_key="one", unique_while="active")
        await queue.enqueue("report")
        (job,) = await queue.take()
        await cancel(queue, job["id"], "stop")
        assert await queue.settle(verdict(job, said, delay=60, error="E")) == {job["id"]: becomes}
        row = await queue.row(job["id"])
        assert (row["status"], row["held_key"], row["finished_at"] is None) == (becomes, None, False)
        if said == "pending":
            assert (row["finish_reason"], row["trouble"], row["queued"]) == ("stop", True, False)

    async def test_holds_through_a_rescue(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.enqueue("report")
        await queue.take()
        other = await queue.register()
        await cancel(queue, (await queue.db.fetchval("select id from worker.job_queue")))
        (job,) = await queue.bury(queue.me, by=other)
        assert await queue.settle(verdict(job, "pending")) == {job["id"]: "cancelled"}


class TestFinal:
    @pytest.mark.parametrize("status", ["completed", "skipped", "failed", "cancelled"])
    async def test_stays_as_it_is(self, queue: Queue, status: str) -> None:
        await queue.declare("report")
        await queue.enqueue("report")
        (job,) = await queue.take()
        await queue.settle(verdict(job, status))
        before = await queue.row(job["id"])
        assert await cancel(queue, job["id"], "late") == status
        assert await queue.row(job["id"]) == before
        assert await queue.count("worker.job_event") == 0


class TestRights:
    async def test_an_application_cancels_its_own_pending_jobs(self, session: Session) -> None:
        app = await session("app")
        assert await cancel(app, await app.enqueue("report")) == "cancelled"

    async def test_and_nobody_elses(self, queue: Queue, session: Session) -> None:
        app, other = await session("app"), await session("other_app")
        theirs = await other.enqueue("report")
        for job in (theirs, 999_999):
            with refused("WK008"):
                await cancel(app, job)
        await app.db.execute("update worker.job_queue set cancel_requested_at = now()")
        assert await queue.statuses() == {theirs: "pending"}

    async def test_nor_its_own_running_ones_and_is_told_so(self, queue: Queue, session: Session) -> None:
        await queue.declare("report")
        app = await session("app")
        job = await app.enqueue("report")
        await queue.take()
        with refused("WK008"):
            await cancel(app, job)
        assert (await queue.row(job))["cancel_requested_at"] is None

    async def test_a_job_claimed_while_the_application_cancels_is_not_cancelled(
        self, queue: Queue, session: Session
    ) -> None:
        await queue.declare("report")
        app, daemon = await session("app"), await session()
        job = await app.enqueue("report")
        claiming = daemon.db.transaction()
        await claiming.start()
        await daemon.take()
        async with blocked(queue, app, cancel(app, job)) as answer:
            await claiming.commit()
            with refused("WK008"):
                await answer
        assert (await queue.row(job))["status"] == "running"

    async def test_an_operator_cancels_any(self, queue: Queue, session: Session) -> None:
        await queue.declare("report")
        app, operator = await session("app"), await session("operator")
        running, pending = await app.enqueue("report"), await app.enqueue("letter")
        await queue.take()
        assert await cancel(operator, pending) == "cancelled"
        assert await cancel(operator, running) == "running"
        assert (await queue.row(running))["cancel_requested_at"] is not None

    @pytest.mark.parametrize("who", ["tenant", "reader", "runner", "nobody"])
    async def test_others_may_not(self, queue: Queue, session: Session, who: str) -> None:
        job = await queue.enqueue("report")
        with refused("42501"):
            await cancel(await session(who), job)
