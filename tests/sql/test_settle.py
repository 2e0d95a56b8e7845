"""Settle: verdicts are written once, under the claim they were made for, many at a time."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import asyncpg
import pytest

from tests.sql.conftest import NOON, PATIENCE, Queue, verdict
from worker.verdict import Verdict

Session = Callable[..., Awaitable[Queue]]


async def running(queue: Queue, count: int = 1, **keys: object) -> list[asyncpg.Record]:
    """Claimed jobs of a type declared with these keys, in the order of their ids."""
    await queue.declare("report", **keys)
    await queue.db.execute(
        "insert into worker.job_queue (job_type, payload)"
        " select 'report', jsonb_build_object('n', n) from generate_series(1, $1) n",
        count,
    )
    return sorted(await queue.take(count), key=lambda job: job["id"])


class TestFence:
    @pytest.mark.parametrize("status", ["completed", "skipped", "failed", "cancelled", "pending"])
    async def test_a_stale_claim_writes_nothing_at_all(self, queue: Queue, status: str) -> None:
        (old,) = await running(queue)
        rescuer = await queue.register()
        (new,) = await queue.bury(queue.me, by=rescuer)
        await queue.db.execute(
            "insert into worker.job_step (job_id, name, status, claim) values ($1, 'a', 'completed', 1)", old["id"]
        )
        before = await queue.row(old["id"])
        assert await queue.settle(verdict(old, status, error="E", result="1", keep_steps=False)) == {}
        assert await queue.row(old["id"]) == before
        assert await queue.count("worker.job_step") == 1
        assert await queue.settle(verdict(new)) == {old["id"]: "completed"}

    async def test_the_right_claim_of_another_job_is_no_key(self, queue: Queue) -> None:
        one, two = await running(queue, 2)
        crossed = [verdict(one)._replace(claim=two["claim"]), verdict(two)._replace(claim=one["claim"])]
        assert await queue.settle(*crossed) == {}
        assert set((await queue.statuses()).values()) == {"running"}

    async def test_a_verdict_sent_again_after_the_end_is_lost(self, queue: Queue) -> None:
        (job,) = await running(queue)
        assert await queue.settle(verdict(job)) == {job["id"]: "completed"}
        before = await queue.row(job["id"])
        assert await queue.settle(verdict(job, "failed", error="late")) == {}
        assert await queue.row(job["id"]) == before

    async def test_one_that_went_back_and_was_claimed_again_is_beyond_reach(self, queue: Queue) -> None:
        (first,) = await running(queue)
        await queue.settle(verdict(first, "pending"))
        assert await queue.settle(verdict(first)) == {}
        (second,) = await queue.take()
        assert await queue.settle(verdict(first)) == {}
        assert await queue.settle(verdict(second)) == {second["id"]: "completed"}

    async def test_in_a_batch_the_good_are_written_and_the_lost_left_out(self, queue: Queue) -> None:
        jobs = await running(queue, 10)
        stale = [verdict(job)._replace(claim=0) for job in jobs[::2]]
        good = [verdict(job) for job in jobs[1::2]]
        assert await queue.settle(*stale, *good, *stale) == {job["id"]: "completed" for job in jobs[1::2]}

    async def test_nothing_to_say_is_no_error(self, queue: Queue) -> None:
        assert await queue.settle() == {}

    async def test_the_end_waits_for_no_second_answer(self, queue: Queue) -> None:
        done, lost, again, open_ = await running(queue, 4)
        await queue.settle(verdict(done), verdict(again, "pending"))
        sent = [verdict(done), verdict(lost)._replace(claim=0), verdict(again, "pending"), verdict(open_)]
        rows = await queue.db.fetch("select * from worker.settled($1, $2)", queue.me, sent)
        assert dict(map(tuple, rows)) == {done["id"]: "completed", again["id"]: "pending"}


class TestEnds:
    @pytest.mark.parametrize(
        ("status", "reason", "trouble"),
        [
            ("completed", None, False),
            ("skipped", "no_op", False),
            ("failed", "exhausted", True),
            ("cancelled", "by hand", True),
        ],
    )
    async def test_are_written_whole(self, queue: Queue, status: str, reason: str | None, trouble: bool) -> None:
        (job,) = await running(queue, unique_key="one", unique_while="active")
        await queue.db.execute("select worker.progress($1, $2, 'half', '{\"n\": 1}')", job["id"], job["claim"])
        await queue.clock(NOON)
        await queue.settle(verdict(job, status, reason=reason, result='{"sum": 3}'))
        row = await queue.row(job["id"])
        assert (row["status"], row["finish_reason"], row["trouble"]) == (status, reason, trouble)
        assert (row["finished_at"], row["result"], row["phase"]) == (NOON, '{"sum": 3}', None)
        assert (row["held_key"], row["queued"], row["parked"]) == (None, False, False)
        assert (row["claim"], row["claimed_by"]) == (job["claim"], queue.me)


class TestBackToPending:
    @pytest.mark.parametrize(
        ("fields", "due", "attempt", "snoozes"),
        [
            ({"delay": 0.0, "error": "E"}, timedelta(0), 1, 0),
            ({"delay": 90.5, "error": "E"}, timedelta(seconds=90.5), 1, 0),
            ({"delay": 30.0, "counted": False, "snoozed": True}, timedelta(seconds=30), 0, 1),
            ({"until": NOON + timedelta(days=2), "counted": False, "snoozed": True}, timedelta(days=2), 0, 1),
            ({"until": datetime(9998, 1, 1, tzinfo=UTC)}, datetime(9000, 1, 1, tzinfo=UTC) - NOON, 1, 0),
        ],
        ids=["retry now", "retry later", "snooze by delay", "snooze until", "until beyond the calendar"],
    )
    async def test_due_time_attempt_and_snoozes(
        self, queue: Queue, fields: dict[str, object], due: timedelta, attempt: int, snoozes: int
    ) -> None:
        (job,) = await running(queue)
        await queue.clock(NOON)
        assert await queue.settle(verdict(job, "pending", **fields)) == {job["id"]: "pending"}
        row = await queue.row(job["id"])
        assert (row["scheduled_at"] - NOON, row["attempt"], row["snoozes"]) == (due, attempt, snoozes)
        assert (row["queued"], row["claimed_by"], row["finished_at"]) == (True, None, None)
        assert row["started_at"] is not None

    async def test_what_is_handed_back_unharmed_keeps_its_place(self, queue: Queue) -> None:
        (job,) = await running(queue)
        before = await queue.row(job["id"])
        later = await queue.enqueue("report")
        await queue.settle(verdict(job, "pending", counted=False))
        row = await queue.row(job["id"])
        assert (row["scheduled_at"], row["attempt"], row["snoozes"]) == (before["scheduled_at"], 0, 0)
        assert [found["id"] for found in await queue.take()] == [job["id"], later]

    async def test_what_went_along_before_it_was_due_is_due_when_it_is_handed_back(self, queue: Queue) -> None:
        (job,) = await running(queue)
        await queue.clock(NOON)
        ahead = NOON + timedelta(days=1)
        await queue.db.execute("update worker.job_queue set scheduled_at = $1", ahead)
        await queue.settle(verdict(job, "pending", counted=False))
        assert (await queue.row(job["id"]))["scheduled_at"] == NOON

    async def test_a_snooze_that_counts_nothing_can_go_on(self, queue: Queue) -> None:
        (job,) = await running(queue)
        for _ in range(5):
            await queue.settle(verdict(job, "pending", counted=False, snoozed=True))
            (job,) = await queue.take()
        assert (job["attempt"], job["snoozes"]) == (1, 5)

    @pytest.mark.parametrize(("keep_steps", "left"), [(True, 2), (False, 0)])
    async def test_steps_are_kept_unless_the_author_says_otherwise(
        self, queue: Queue, keep_steps: bool, left: int
    ) -> None:
        job, other = await running(queue, 2)
        for each, name in itertools.product((job, other), "ab"):
            await queue.db.execute(
                "insert into worker.job_step (job_id, name, status, claim) values ($1, $2, 'completed', 1)",
                each["id"],
                name,
            )
        await queue.settle(verdict(job, "pending", keep_steps=keep_steps, snoozed=True), verdict(other, "pending"))
        counts = dict(await queue.db.fetch("select job_id, count(*) from worker.job_step group by job_id"))
        assert counts == {job["id"]: left, other["id"]: 2} if left else {other["id"]: 2}

    async def test_an_active_key_is_held_until_the_end(self, queue: Queue) -> None:
        (job,) = await running(queue, unique_key="one", unique_while="active")
        await queue.settle(verdict(job, "pending"))
        assert (await queue.row(job["id"]))["held_key"] == "one"
        (job,) = await queue.take()
        await queue.settle(verdict(job))
        assert (await queue.row(job["id"]))["held_key"] is None


class TestRings:
    """What is due at once is told to a neighbour that sleeps, and to nobody else."""

    HANDED_BACK: ClassVar = {"status": "pending", "counted": False}

    @pytest.mark.parametrize(
        ("said", "rings"),
        [
            (HANDED_BACK, True),
            ({"status": "pending", "error": "E"}, True),
            ({"status": "pending", "snoozed": True}, True),
            ({"status": "pending", "delay": 60.0, "error": "E"}, False),
            ({"status": "pending", "until": NOON + timedelta(days=9000), "snoozed": True}, False),
            ({"status": "completed"}, False),
            ({"status": "failed", "error": "E"}, False),
        ],
        ids=["handed back", "retry now", "snooze of nothing", "retry later", "snooze until", "completed", "failed"],
    )
    async def test_for_what_is_due(self, queue: Queue, session: Session, said: dict[str, object], rings: bool) -> None:
        (job,) = await running(queue)
        sleeper = await asleep(queue, "report")
        heard = await rung(queue, session, verdict(job, **said))
        assert heard == ([str(sleeper)] if rings else [])

    async def test_once_for_a_whole_batch(self, queue: Queue, session: Session) -> None:
        jobs = await running(queue, 20)
        sleeper = await asleep(queue, "report")
        assert await rung(queue, session, *[verdict(job, **self.HANDED_BACK) for job in jobs]) == [str(sleeper)]

    async def test_not_who_settles_nor_who_runs_other_types_nor_who_is_awake(
        self, queue: Queue, session: Session
    ) -> None:
        (job,) = await running(queue)
        await queue.db.execute("update worker.process set types = '{report}'")
        await queue.db.execute("select worker.sleep($1, 5)", queue.me)
        await asleep(queue, "other")
        awake = await asleep(queue, "report")
        await queue.db.execute("select worker.wake($1)", awake)
        over = await asleep(queue, "report")
        await queue.db.execute("update worker.asleep set until = clock_timestamp() where process_id = $1", over)
        assert await rung(queue, session, verdict(job, **self.HANDED_BACK)) == []

    async def test_nobody_is_looked_for_behind_a_shut_gate(self, queue: Queue, session: Session) -> None:
        (job,) = await running(queue)
        await asleep(queue, "report")
        await queue.db.execute("select setval('worker.bell', 1)")
        assert await rung(queue, session, verdict(job, **self.HANDED_BACK)) == []

    async def test_in_the_settles_own_transaction(self, queue: Queue, session: Session) -> None:
        (job,) = await running(queue)
        await asleep(queue, "report")
        async with listening(session) as heard:
            transaction = queue.db.transaction()
            await transaction.start()
            await queue.settle(verdict(job, **self.HANDED_BACK))
            await transaction.rollback()
            await queue.db.execute("select worker.test_ring('end')")
            assert await heard() == []

    async def test_of_what_a_lost_claim_call_took(self, queue: Queue, session: Session) -> None:
        await running(queue)
        sleeper = await asleep(queue, "report")
        async with listening(session) as heard:
            await queue.db.execute("select worker.unclaim($1, $2)", queue.me, queue.batch)
            await queue.db.execute("select worker.test_ring('end')")
            assert await heard() == [str(sleeper)]


async def asleep(queue: Queue, *types: str) -> int:
    """A process that runs these types and sleeps."""
    process = await queue.register(types)
    await queue.db.execute("select worker.sleep($1, 5)", process)
    return process


async def rung(queue: Queue, session: Session, *verdicts: Verdict) -> list[str]:
    """Settle; answers with who was rung for it."""
    async with listening(session) as heard:
        await queue.settle(*verdicts)
        await queue.db.execute("select worker.test_ring('end')")
        return await heard()


@contextlib.asynccontextmanager
async def listening(session: Session) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Listens to the rings; what is yielded waits for a test ring and answers with those before it."""
    listener = await session()
    rings: asyncio.Queue[str] = asyncio.Queue()
    await listener.db.add_listener("worker", lambda *about: rings.put_nowait(str(about[-1])))

    async def heard() -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not (ring := await rings.get()).startswith("test "):
                found.append(ring)
        return found

    yield heard


class TestErrors:
    async def test_the_last_five_are_kept_with_attempt_and_instant(self, queue: Queue) -> None:
        (job,) = await running(queue)
        await queue.clock(NOON)
        for number in range(1, 8):
            await queue.settle(verdict(job, "pending" if number < 7 else "failed", error=f"E{number}"))
            if number < 7:
                (job,) = await queue.take()
        errors = json.loads((await queue.row(job["id"]))["errors"])
        assert [(each["attempt"], each["message"]) for each in errors] == [(n, f"E{n}") for n in range(3, 8)]
        assert {datetime.fromisoformat(each["at"]) for each in errors} == {NOON}

    async def test_no_error_adds_none(self, queue: Queue) -> None:
        (job,) = await running(queue)
        await queue.settle(verdict(job, "pending", snoozed=True))
        assert (await queue.row(job["id"]))["errors"] is None

    async def test_a_success_keeps_the_errors_before_it(self, queue: Queue) -> None:
        (job,) = await running(queue)
        await queue.settle(verdict(job, "pending", error="first"))
        await queue.settle(*[verdict(job) for job in await queue.take()])
        assert "first" in (await queue.row(job["id"]))["errors"]

    @pytest.mark.parametrize("text", ["", "'; drop table worker.job_queue; --", "ü\n\t\u202e💥", "x" * 2000, "{}"])
    async def test_any_text_can_be_written(self, queue: Queue, text: str) -> None:
        (job,) = await running(queue)
        await queue.settle(verdict(job, "failed", error=text, reason=text[:100]))
        assert json.loads((await queue.row(job["id"]))["errors"])[0]["message"] == text

    @pytest.mark.parametrize("result", ["1", "null", '"text"', "[1, 2]", '{"a": {"b": null}}', "1e400", "-0.0"])
    async def test_any_json_is_a_result(self, queue: Queue, result: str) -> None:
        (job,) = await running(queue)
        await queue.settle(verdict(job, result=result))
        assert await queue.db.fetchval("select result = $1::jsonb from worker.job_queue", result)


class TestMany:
    async def test_a_thousand_verdicts_of_all_kinds_in_one_call(self, queue: Queue) -> None:
        jobs = await running(queue, 1000, concurrency_key="{n}")
        statuses = ("completed", "skipped", "failed", "cancelled", "pending")
        said = {job["id"]: statuses[job["id"] % 5] for job in jobs}
        verdicts = [verdict(job, said[job["id"]], error="E", result="1") for job in jobs]
        random.Random(1).shuffle(verdicts)
        assert await queue.settle(*verdicts) == said
        assert await queue.statuses() == said
        assert await queue.count("worker.key_slot") == 0

    async def test_statistics_from_when_the_table_was_small_do_not_make_it_walk_the_table(
        self, queue: Queue, session: Session
    ) -> None:
        jobs = await running(queue, 20)
        await queue.db.execute("analyze worker.job_queue")
        await queue.db.execute("insert into worker.job_queue (job_type) select 'report' from generate_series(1, 20000)")
        jobs += await queue.take(1000)
        fresh = await session()
        async with fresh.db.transaction():
            before = await counters(fresh, "seq_tup_read", "idx_scan")
            assert len(await fresh.settle(*[verdict(job) for job in jobs[:1000]])) == 1000
            tuples, scans = await counters(fresh, "seq_tup_read", "idx_scan")
        assert (tuples - before[0], scans - before[1] >= 1000) == (0, True)

    async def test_the_completion_of_a_usual_job_is_a_heap_only_update(self, queue: Queue) -> None:
        for name, keys in {
            "plain": {},
            "waiting": {"unique_key": "{n}"},
            "line": {"concurrency_key": "{n}"},
        }.items():
            await queue.declare(name, **keys)
            await queue.enqueue_many(name, *({"n": n} for n in range(2)))
        jobs = await queue.take()
        await queue.db.execute("vacuum worker.job_queue")  # room on the page, so that only an index could prevent it
        written, heap_only = await self.updates(queue, jobs, result='{"sum": 1}')
        assert (written, heap_only) == (6, 6)

    async def test_that_of_a_failed_one_is_not_because_troubles_are_indexed(self, queue: Queue) -> None:
        jobs = await running(queue, 20)
        assert await self.updates(queue, jobs, "failed") == (20, 0)

    async def updates(self, queue: Queue, jobs: list[asyncpg.Record], *said: str, **fields: str) -> tuple[int, ...]:
        """Settle; how many updates of job_queue that took, and how many of them were heap-only."""
        async with queue.db.transaction():
            before = await counters(queue, "n_tup_upd", "n_tup_hot_upd")
            await queue.settle(*[verdict(job, *said, **fields) for job in jobs])
            after = await counters(queue, "n_tup_upd", "n_tup_hot_upd")
        return tuple(now - then for now, then in zip(after, before, strict=True))


async def counters(queue: Queue, *names: str) -> tuple[int, ...]:
    """Of job_queue, what this session's transaction has counted so far: exact, where pg_stat_user_tables lags."""
    return tuple(
        await queue.db.fetchrow(
            f"select {', '.join(names)} from pg_stat_xact_user_tables where relid = 'worker.job_queue'::regclass"
        )
    )
