"""What operators do: retry, pause, resume, prune, and the answer to "why does it not run?"."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, blocked, refused, verdict

Session = Callable[..., Awaitable[Queue]]
DAY = 86_400


async def retry(queue: Queue, id: int, fresh: bool = False) -> str:
    return await queue.db.fetchval("select worker.retry($1, $2)", id, fresh)


async def ended(queue: Queue, status: str = "failed", job_type: str = "report", **named: Any) -> int:
    """A job that was claimed once and settled so."""
    id = await queue.enqueue(job_type, **named)
    (job,) = [each for each in await queue.take() if each["id"] == id]
    await queue.settle(verdict(job, status, reason="exhausted", error="E"))
    return id


async def step(queue: Queue, job: int, name: str = "one", status: str = "completed") -> None:
    await queue.db.execute(
        "insert into worker.job_step (job_id, name, status, claim) values ($1, $2, $3, 1)", job, name, status
    )


class TestRetry:
    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    async def test_makes_it_as_good_as_new_but_for_what_is_done(self, queue: Queue, status: str) -> None:
        await queue.declare("report", deadline=60)
        job = await ended(queue, status)
        await queue.db.execute(
            "update worker.job_queue set rescues = 2, snoozes = 3, expires_at = '2100-01-01', deadline_at = now(),"
            " cancel_reason = 'x' where id = $1",
            job,
        )
        await step(queue, job)
        before = await queue.row(job)
        await queue.clock(NOON)
        assert await retry(queue, job) == "pending"
        row = await queue.row(job)
        assert (row["status"], row["queued"], row["parked"], row["trouble"]) == ("pending", True, False, False)
        assert (row["attempt"], row["rescues"], row["snoozes"], row["scheduled_at"]) == (0, 0, 0, NOON)
        cleared = ("finished_at", "finish_reason", "cancel_requested_at", "cancel_reason", "expires_at", "deadline_at",
                   "claimed_by", "held_key")  # fmt: skip
        assert {name: row[name] for name in cleared} == dict.fromkeys(cleared)
        assert (row["started_at"], row["errors"]) == (before["started_at"], before["errors"])
        assert await queue.db.fetchval("select status from worker.job_step") == "completed"

    async def test_its_deadline_is_counted_from_the_next_start(self, queue: Queue) -> None:
        await queue.declare("report", deadline=60)
        job = await ended(queue)
        await retry(queue, job)
        await queue.clock(NOON.replace(year=2030))
        (claimed,) = await queue.take()
        assert (claimed["id"], claimed["attempt"], claimed["remaining"]) == (job, 1, 60.0)

    async def test_fresh_forgets_the_steps(self, queue: Queue) -> None:
        await queue.declare("report")
        job = await ended(queue)
        await step(queue, job)
        await retry(queue, job, fresh=True)
        assert await queue.count("worker.job_step") == 0

    async def test_leaves_an_event_that_names_the_caller(self, queue: Queue, session: Session) -> None:
        await queue.declare("report")
        job = await ended(queue)
        operator = await session("operator")
        who = await operator.db.fetchval("select current_user")
        await retry(operator, job)
        row = await queue.db.fetchrow("select job_id, event, actor, detail from worker.job_event")
        assert row is not None
        assert tuple(row)[:3] == (job, "retry", who)
        assert json.loads(row["detail"]) == {"was": "failed", "reason": "exhausted", "attempt": 1}

    @pytest.mark.parametrize("status", ["completed", "skipped"])
    async def test_no_other_end_is_reopened(self, queue: Queue, status: str) -> None:
        await queue.declare("report")
        job = await ended(queue, status)
        with refused("WK020", status):
            await retry(queue, job)

    async def test_nor_is_a_job_that_is_not_at_its_end(self, queue: Queue) -> None:
        await queue.declare("report")
        job = await queue.enqueue("report")
        with refused("WK020", "pending"):
            await retry(queue, job)
        await queue.take()
        with refused("WK020", "running"):
            await retry(queue, job)

    async def test_unknown_job(self, queue: Queue) -> None:
        with refused("WK008", "no job 99"):
            await retry(queue, 99)

    async def test_a_held_active_key_refuses_with_the_holder(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one", unique_while="active")
        job = await ended(queue)
        holder = await queue.enqueue("report")
        with refused("WK003", f"job {holder} holds") as caught:
            await retry(queue, job)
        assert caught.value.detail == str(holder)
        assert (await queue.row(job))["status"] == "failed"

    async def test_it_holds_its_active_key_again(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one", unique_while="active")
        job = await ended(queue)
        await retry(queue, job)
        assert await queue.enqueue("report") == job

    async def test_a_holder_that_is_expired_does_not_hold(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one", unique_while="active")
        job = await ended(queue)
        holder = await queue.enqueue("report", expires_at=NOON)
        await queue.clock(NOON + timedelta(days=1))
        await queue.db.execute("update worker.job_queue set expires_at = $1 where id = $2", NOON, holder)
        await retry(queue, job)
        assert await queue.statuses() == {job: "pending", holder: "skipped"}

    async def test_a_holder_not_yet_committed_is_waited_for(self, queue: Queue, session: Session) -> None:
        await queue.declare("report", unique_key="one", unique_while="active")
        job = await ended(queue)
        producer, operator = await session(), await session()
        transaction = producer.db.transaction()
        await transaction.start()
        holder = await producer.enqueue("report")
        async with blocked(queue, operator, retry(operator, job)) as task:
            await transaction.commit()
        with refused("WK003") as caught:
            await task
        assert caught.value.detail == str(holder)

    async def test_a_started_job_is_not_waiting_and_blocks_no_new_one(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one")
        job = await ended(queue)
        waiting = await queue.enqueue("report")
        await retry(queue, job)
        assert (await queue.row(job))["held_key"] is None
        assert await queue.enqueue("report") == waiting

    async def test_one_that_never_started_waits_and_holds(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one")
        job = await queue.enqueue("report")
        await queue.db.execute("select worker.cancel($1)", job)
        await retry(queue, job)
        assert await queue.enqueue("report") == job
        await queue.db.execute("select worker.cancel($1)", job)
        await queue.enqueue("report")
        with refused("WK003"):
            await retry(queue, job)

    async def test_an_invalid_one_gets_its_keys_or_is_refused(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="{club}", concurrency_key="{club}")
        job = await queue.enqueue("report")
        assert (await queue.row(job))["finish_reason"] == "invalid"
        with refused("WK020", "still cannot run"):
            await retry(queue, job)
        await queue.declare("report", unique_key="one", concurrency_key="line")
        await retry(queue, job)
        row = await queue.row(job)
        assert (row["unique_key"], row["held_key"], row["concurrency_key"]) == ("one", "one", "line")

    async def test_wakes_a_daemon_that_runs_the_type(self, queue: Queue, second: asyncpg.Connection) -> None:
        heard: list[object] = []
        await second.add_listener("worker", lambda *said: heard.append(said[3]))
        await queue.declare("report")
        job = await ended(queue)
        other, sleeper = await queue.register(["other"]), await queue.register(["report"])
        for process in (sleeper, other):
            await queue.db.execute("select worker.sleep($1, 60)", process)
        await retry(queue, job)
        await second.execute("select 1")
        await second.remove_listener("worker", lambda *said: None)
        assert heard == [str(sleeper)]

    async def test_of_one_job_by_two_happens_once(self, queue: Queue, session: Session) -> None:
        await queue.declare("report")
        job = await ended(queue)
        first, other = await session(), await session()
        transaction = first.db.transaction()
        await transaction.start()
        await retry(first, job)
        async with blocked(queue, other, retry(other, job)) as task:
            await transaction.commit()
        with refused("WK020", "pending"):
            await task
        assert await queue.count("worker.job_event") == 1


class TestRetryFailed:
    async def test_goes_page_by_page_over_one_type(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.declare("other")
        jobs = [await ended(queue) for _ in range(3)]
        other, cancelled = await ended(queue, job_type="other"), await ended(queue, "cancelled")
        after, pages = 0, []
        while True:
            last, retried, not_done = await queue.db.fetchrow(
                "select * from worker.retry_failed('report', $1, 2)", after
            )
            if last is None:
                break
            pages.append((last, retried, not_done))
            after = last
        assert pages == [(jobs[1], 2, 0), (jobs[2], 1, 0)]
        expected = dict.fromkeys(jobs, "pending") | {other: "failed", cancelled: "cancelled"}
        assert await queue.statuses() == expected

    async def test_counts_those_whose_key_is_held(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="one", unique_while="active")
        first = await ended(queue)
        await ended(queue)
        row = await queue.db.fetchrow("select * from worker.retry_failed('report')")
        assert (row["retried"], row["refused"]) == (1, 1)
        assert (await queue.row(first))["status"] == "pending"


class TestPause:
    async def test_stops_claims_and_resume_goes_on(self, queue: Queue) -> None:
        await queue.declare("report")
        job = await queue.enqueue("report")
        assert await queue.db.fetchval("select worker.pause('report')") is True
        assert await queue.db.fetchval("select worker.pause('report')") is False
        assert (await queue.claim()).ids == []
        assert await queue.db.fetchval("select worker.resume('report')") is True
        assert await queue.db.fetchval("select worker.resume('report')") is False
        assert (await queue.claim()).ids == [job]

    async def test_each_change_is_an_event(self, queue: Queue, session: Session) -> None:
        await queue.declare("report")
        operator = await session("operator")
        for call in ("pause", "pause", "resume"):
            await operator.db.execute(f"select worker.{call}('report')")
        events = await queue.db.fetch("select job_id, event, actor, detail from worker.job_event order by id")
        who = await operator.db.fetchval("select current_user")
        assert events == [(None, event, who, '{"job_type": "report"}') for event in ("pause", "resume")]

    @pytest.mark.parametrize("call", ["pause", "resume"])
    async def test_an_unknown_type_is_said_to_be_so(self, queue: Queue, call: str) -> None:
        with refused("WK021", 'nobody declared the type "nothing"'):
            await queue.db.execute(f"select worker.{call}('nothing')")


class TestPrune:
    KEEP = json.dumps({"completed": 7 * DAY, "skipped": 3 * DAY, "failed": 30 * DAY, "cancelled": 7 * DAY})

    async def prune(self, queue: Queue, after: int = 0, n: int = 5000, keep: str | None = None) -> asyncpg.Record:
        row = await queue.db.fetchrow("select * from worker.prune($1::jsonb, $2, $3)", keep or self.KEEP, after, n)
        assert row is not None
        return row

    async def test_each_status_has_its_age_and_unfinished_ones_stay(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report")
        jobs = {status: await ended(queue, status) for status in ("completed", "skipped", "failed", "cancelled")}
        running = await queue.enqueue("report")
        await queue.take()
        pending = await queue.enqueue("report")
        left = []
        for days in (2, 4, 8, 31):
            await queue.clock(NOON + timedelta(days=days))
            await self.prune(queue)
            left.append(set(await queue.statuses()) - {running, pending})
        everything = set(jobs.values())
        assert left == [everything, everything - {jobs["skipped"]}, {jobs["failed"]}, set()]
        assert await queue.statuses() == {running: "running", pending: "pending"}

    async def test_a_status_that_is_not_named_is_kept(self, queue: Queue) -> None:
        await queue.declare("report")
        await ended(queue)
        await queue.clock(NOON.replace(year=2050))
        assert (await self.prune(queue, keep='{"completed": 0}'))["gone"] == 0
        assert (await self.prune(queue, keep="{}"))["gone"] == 0

    async def test_takes_steps_and_events_along(self, queue: Queue) -> None:
        await queue.declare("report")
        old, kept = await ended(queue), await queue.enqueue("report")
        for job in (old, kept):
            await step(queue, job)
            await queue.db.execute("insert into worker.job_event (job_id, event) values ($1, 'x')", job)
        await queue.db.execute("select worker.pause('report')")
        await queue.clock(NOON.replace(year=2050))
        await self.prune(queue)
        assert await queue.db.fetch("select job_id from worker.job_step") == [(kept,)]
        assert await queue.db.fetch("select job_id from worker.job_event order by id") == [(kept,), (None,)]

    async def test_goes_over_the_primary_key_in_pages_and_stops_where_rows_are_young(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.clock(NOON)
        jobs = [await ended(queue) for _ in range(5)]
        await queue.clock(NOON + timedelta(days=40))
        young = [await queue.enqueue("report") for _ in range(3)]
        pages, after, more = [], 0, True
        while more:
            after, gone, more = await self.prune(queue, after, 2)
            pages.append((after, gone, more))
        assert pages == [(jobs[1], 2, True), (jobs[3], 2, True), (young[0], 1, False)]
        assert list(await queue.statuses()) == young

    async def test_one_at_a_time(self, queue: Queue, session: Session) -> None:
        await queue.declare("report")
        await ended(queue)
        await queue.clock(NOON.replace(year=2050))
        other = await session()
        async with other.db.transaction():
            assert (await self.prune(other))["gone"] == 1
            row = await self.prune(queue)
            assert (row["gone"], row["more"]) == (0, False)

    async def test_forgets_processes_a_day_after_their_end(self, queue: Queue) -> None:
        await queue.clock(NOON)
        stopped, dead, holding, alive = [await queue.register() for _ in range(4)]
        await queue.db.execute("select worker.leave($1)", stopped)
        await queue.bury(dead, by=alive)
        assert await queue.db.fetchval("select worker.mark_dead($1, $2)", alive, holding)  # not emptied yet
        counts = []
        for hours in (23, 25):
            await queue.clock(NOON + timedelta(hours=hours))
            await self.prune(queue)
            counts.append([id for (id,) in await queue.db.fetch("select id from worker.process order by id")])
        assert counts == [[stopped, dead, holding, alive], [holding, alive]]


class TestRights:
    CALLS = (
        "retry(1)",
        "retry_failed('report')",
        "pause('report')",
        "resume('report')",
        "prune('{}')",
        "explain_job(1)",
    )

    @pytest.mark.parametrize(
        ("role", "may"),
        [
            (
                "operator",
                {"retry(1)", "retry_failed('report')", "pause('report')", "resume('report')", "explain_job(1)"},
            ),
            ("reader", {"explain_job(1)"}),
            ("runner", {"prune('{}')", "explain_job(1)"}),
            ("app", set()),
            ("tenant", set()),
            ("nobody", set()),
        ],
    )
    async def test_who_may_what(self, queue: Queue, session: Session, role: str, may: set[str]) -> None:
        await queue.declare("report")
        await ended(queue)
        someone = await session(role)
        allowed = set()
        for call in self.CALLS:
            try:
                await someone.db.execute(f"select worker.{call}")
            except asyncpg.InsufficientPrivilegeError:
                continue
            allowed.add(call)
        assert allowed == may

    async def test_the_halves_are_nobodys(self, session: Session) -> None:
        operator = await session("operator")
        for call in (
            "set_paused('a', true)",
            "reopen(null, now())",
            "rekeyed(null)",
            "ring_for('a')",
            "claim_job(1, 1, 1)",
            "prune_processes(now())",
        ):
            with refused("42501"):
                await operator.db.execute(f"select worker.{call}")
