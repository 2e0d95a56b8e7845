"""worker.enqueue: what it answers, whom it meets, and that nobody's change is lost."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.sql.conftest import NOON, Queue, blocked, refused, until_blocked, verdict

Session = Callable[..., Awaitable[Queue]]
HOUR = timedelta(hours=1)


async def unique(queue: Queue, name: str = "report", **keys: object) -> str:
    return await queue.declare(name, **{"unique_key": "report:{number}", **keys})


class TestDefaults:
    async def test_everything_left_out_comes_from_the_declared_type(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare(
            "mail", priority=7, max_attempts=3, expires=60, unique_key="m:{to}", concurrency_key="c:{tenant_id}"
        )
        row = await queue.row(await queue.enqueue("mail", {"to": "ada", "tenant_id": "t1"}))
        expected = {
            "status": "pending",
            "queued": True,
            "priority": 7,
            "max_attempts": 3,
            "unique_key": "m:ada",
            "concurrency_key": "c:t1",
            "tenant_id": "t1",
            "scheduled_at": NOON,
            "created_at": NOON,
            "expires_at": NOON + timedelta(seconds=60),
            "attempt": 0,
        }
        assert {name: row[name] for name in expected} == expected
        assert len(row["correlation_id"]) == 36

    async def test_an_undeclared_type_gets_the_defaults_of_the_table(self, queue: Queue) -> None:
        row = await queue.row(await queue.enqueue("unheard_of"))
        assert (row["priority"], row["max_attempts"], row["unique_key"]) == (100, 5, None)

    async def test_what_is_said_wins(self, queue: Queue) -> None:
        await queue.declare("mail", priority=7, max_attempts=3, unique_key="m:{to}")
        said = {
            "scheduled_at": NOON + HOUR,
            "priority": 500,
            "unique_key": "mine",
            "concurrency_key": "line",
            "tenant_id": "t2",
            "max_attempts": 9,
            "expires_at": NOON + 2 * HOUR,
            "correlation_id": "c-1",
            "source": "match",
        }
        row = await queue.row(await queue.enqueue("mail", **said))
        assert {name: row[name] for name in said} == said

    async def test_a_delay_counts_from_the_due_time_or_from_now(self, queue: Queue) -> None:
        await queue.clock(NOON)
        first = await queue.enqueue(delay=HOUR)
        second = await queue.enqueue(scheduled_at=NOON + HOUR, delay=HOUR)
        assert (await queue.row(first))["scheduled_at"] == NOON + HOUR
        assert (await queue.row(second))["scheduled_at"] == NOON + 2 * HOUR

    async def test_the_setting_traceparent_goes_onto_the_row(self, queue: Queue) -> None:
        await queue.db.execute("set worker.traceparent = '00-ab-cd-01'")
        assert (await queue.row(await queue.enqueue()))["traceparent"] == "00-ab-cd-01"


class TestKeep:
    async def test_answers_with_the_holder_and_adds_no_row(self, queue: Queue) -> None:
        await unique(queue)
        holder = await queue.enqueue("report", {"number": 1, "text": "first"})
        assert await queue.enqueue("report", {"number": 1, "text": "second"}) == holder
        assert await queue.enqueue("report", {"number": 2}) != holder
        assert await queue.count() == 2
        assert (await queue.row(holder))["payload"] == '{"text": "first", "number": 1}'

    @pytest.mark.parametrize(
        ("priority", "due", "expected"),
        [
            (50, HOUR, (50, HOUR)),
            (100, -HOUR, (100, -HOUR)),
            (50, -HOUR, (50, -HOUR)),
            (50, 2 * HOUR, (50, HOUR)),
            (200, -HOUR, (100, -HOUR)),
        ],
    )
    async def test_the_better_priority_and_due_time_win(
        self, queue: Queue, priority: int, due: timedelta, expected: tuple[int, timedelta]
    ) -> None:
        await unique(queue)
        holder = await queue.enqueue("report", {"number": 1}, priority=100, scheduled_at=NOON + HOUR)
        again = await queue.enqueue("report", {"number": 1}, priority=priority, scheduled_at=NOON + due)
        row = await queue.row(holder)
        assert (again, row["priority"], row["scheduled_at"] - NOON) == (holder, *expected)

    @pytest.mark.parametrize(("priority", "due"), [(100, HOUR), (200, HOUR), (100, 2 * HOUR), (1000, 9 * HOUR)])
    async def test_a_worse_or_equal_one_does_not_write_the_holder(
        self, queue: Queue, priority: int, due: timedelta
    ) -> None:
        await unique(queue)
        holder = await queue.enqueue("report", {"number": 1}, priority=100, scheduled_at=NOON + HOUR)
        before = await queue.row(holder)
        await queue.enqueue("report", {"number": 1}, priority=priority, scheduled_at=NOON + due)
        assert await queue.row(holder) == before

    async def test_a_stale_answer_of_an_earlier_call_is_never_given(self, queue: Queue) -> None:
        await unique(queue)
        async with queue.db.transaction():
            holder = await queue.enqueue("report", {"number": 1})
            assert await queue.enqueue("report", {"number": 1}) == holder
            assert await queue.enqueue("plain") > holder
            assert await queue.enqueue("report", {"number": 2}) > holder


class TestRefuse:
    async def test_says_the_holder_in_detail(self, queue: Queue) -> None:
        await unique(queue, on_conflict="refuse")
        holder = await queue.enqueue("report", {"number": 1})
        with refused("WK003", "report:1") as error:
            await queue.enqueue("report", {"number": 1})
        assert error.value.detail == str(holder)

    async def test_one_call_may_ask_for_it(self, queue: Queue) -> None:
        await unique(queue)
        await queue.enqueue("report", {"number": 1})
        with refused("WK003"):
            await queue.enqueue("report", {"number": 1}, on_conflict="refuse")
        assert await queue.enqueue("report", {"number": 2}, on_conflict="refuse")


class TestReplace:
    async def test_payload_priority_and_due_time_of_the_newer(self, queue: Queue) -> None:
        await unique(queue, on_conflict="replace")
        holder = await queue.enqueue("report", {"number": 1, "a": 1}, priority=5, scheduled_at=NOON)
        again = await queue.enqueue("report", {"number": 1, "b": 2}, priority=900, scheduled_at=NOON + HOUR)
        row = await queue.row(holder)
        assert again == holder
        assert (row["payload"], row["priority"], row["scheduled_at"]) == (
            '{"b": 2, "number": 1}',
            900,
            NOON + HOUR,
        )

    async def test_a_parked_holder_is_queued_again(self, queue: Queue) -> None:
        await unique(queue, on_conflict="replace", concurrency_key="one")
        await queue.enqueue("report", {"number": 1})
        parked = await queue.enqueue("report", {"number": 2})
        assert (await queue.claim()).parked == 1
        await queue.enqueue("report", {"number": 2, "new": True}, scheduled_at=NOON)
        row = await queue.row(parked)
        assert (row["queued"], row["parked"], row["payload"]) == (True, False, '{"new": true, "number": 2}')

    @pytest.mark.parametrize("retrying", [False, True])
    async def test_is_refused_when_the_active_holder_has_started(self, queue: Queue, retrying: bool) -> None:
        await unique(queue, on_conflict="replace", unique_while="active")
        holder = await queue.enqueue("report", {"number": 1})
        (job,) = await queue.take()
        if retrying:
            await queue.settle(verdict(job, "pending", delay=60, error="E"))
        before = await queue.row(holder)
        with refused("WK003") as error:
            await queue.enqueue("report", {"number": 1, "new": True})
        assert error.value.detail == str(holder)
        assert await queue.row(holder) == before


class TestHolding:
    """Who holds a key: under `waiting` a job that never started, under `active` any job that is not final."""

    @pytest.mark.parametrize(
        ("unique_while", "state", "holds"),
        [
            ("waiting", "waiting", True),
            ("waiting", "running", False),
            ("waiting", "retrying", False),
            ("waiting", "completed", False),
            ("active", "waiting", True),
            ("active", "running", True),
            ("active", "retrying", True),
            ("active", "completed", False),
            ("active", "failed", False),
            ("active", "cancelled", False),
        ],
    )
    async def test_both_forms_in_every_state(self, queue: Queue, unique_while: str, state: str, holds: bool) -> None:
        await unique(queue, unique_while=unique_while)
        first = await queue.enqueue("report", {"number": 1})
        if state != "waiting":
            (job,) = await queue.take()
            if state != "running":
                status = "pending" if state == "retrying" else state
                await queue.settle(verdict(job, status, delay=60, reason="cancelled"))
        second = await queue.enqueue("report", {"number": 1})
        assert (second == first) is holds

    async def test_a_retry_does_not_enter_the_waiting_key_again(self, queue: Queue) -> None:
        await unique(queue)
        await queue.enqueue("report", {"number": 1})
        (job,) = await queue.take()
        newer = await queue.enqueue("report", {"number": 1})
        assert await queue.settle(verdict(job, "pending")) == {job["id"]: "pending"}
        assert sorted((await queue.claim()).ids) == [job["id"], newer]

    async def test_an_expired_holder_is_ended_first(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await unique(queue, expires=60)
        old = await queue.enqueue("report", {"number": 1})
        await queue.clock(NOON + HOUR)
        new = await queue.enqueue("report", {"number": 1})
        assert new != old
        row = await queue.row(old)
        assert (row["status"], row["finish_reason"], row["finished_at"]) == ("skipped", "expired", NOON + HOUR)
        assert (await queue.row(new))["status"] == "pending"

    async def test_a_running_holder_past_its_expiry_still_holds(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await unique(queue, expires=60, unique_while="active")
        holder = await queue.enqueue("report", {"number": 1})
        await queue.take()
        await queue.clock(NOON + HOUR)
        assert await queue.enqueue("report", {"number": 1}) == holder

    async def test_tenants_and_types_have_keys_of_their_own(self, queue: Queue) -> None:
        for name in ("report", "letter"):
            await queue.declare(name, unique_key="one")
        who = [(name, tenant) for name in ("report", "letter") for tenant in (None, "t1", "t2")]
        ids = [await queue.enqueue(name, tenant_id=tenant) for name, tenant in who]
        assert len(set(ids)) == len(who)
        assert [await queue.enqueue(name, tenant_id=tenant) for name, tenant in who] == ids


class TestOtherSessions:
    async def test_waits_for_an_uncommitted_holder_and_answers_with_it(self, queue: Queue, session: Session) -> None:
        await unique(queue)
        other, observer = await session(), await session()
        change = other.db.transaction()
        await change.start()
        holder = await other.enqueue("report", {"number": 1}, priority=100, scheduled_at=NOON)
        call = queue.enqueue("report", {"number": 1}, priority=3, scheduled_at=NOON - HOUR)
        async with blocked(observer, queue, call) as answer:
            await change.commit()
            assert await answer == holder
        row = await queue.row(holder)
        assert (row["priority"], row["scheduled_at"]) == (3, NOON - HOUR)

    async def test_a_holder_rolled_back_leaves_the_key_to_who_waited(self, queue: Queue, session: Session) -> None:
        await unique(queue)
        other, observer = await session(), await session()
        change = other.db.transaction()
        await change.start()
        lost = await other.enqueue("report", {"number": 1})
        async with blocked(observer, queue, queue.enqueue("report", {"number": 1})) as answer:
            await change.rollback()
            assert await answer != lost
        assert await queue.count() == 1

    async def test_many_keys_are_taken_in_one_order_so_two_calls_never_deadlock(
        self, queue: Queue, session: Session
    ) -> None:
        await unique(queue)
        other, third = await session(), await session()
        held = third.db.transaction()
        await held.start()
        await third.enqueue("report", {"number": "m"})
        keys = [{"number": each} for each in "zma"]
        async with (
            blocked(third, queue, queue.enqueue_many("report", *keys)) as downwards,
            blocked(third, other, other.enqueue_many("report", *reversed(keys))) as upwards,
        ):
            await until_blocked(third, queue, other)
            await held.rollback()
            assert sorted([await downwards, await upwards]) == [0, 3]
        assert await queue.count() == 3

    async def test_many_with_one_key_twice_adds_it_once(self, queue: Queue) -> None:
        await unique(queue)
        assert await queue.enqueue_many("report", {"number": 1}, {"number": 2}, {"number": 1}) == 2
        assert await queue.enqueue_many("report", {"number": 1}, {"number": 3}) == 1

    async def test_many_without_a_key_are_all_added(self, queue: Queue) -> None:
        assert await queue.enqueue_many("plain", *({"n": n} for n in range(50))) == 50
        payloads = await queue.db.fetch("select payload ->> 'n' from worker.job_queue order by id")
        assert [int(n) for (n,) in payloads] == list(range(50))

    async def test_repeatable_read_keeps_a_visible_holder(self, queue: Queue) -> None:
        await unique(queue)
        holder = await queue.enqueue("report", {"number": 1})
        async with queue.db.transaction(isolation="repeatable_read"):
            assert await queue.enqueue("report", {"number": 1}) == holder

    async def test_repeatable_read_is_told_to_repeat_for_one_it_cannot_see(
        self, queue: Queue, session: Session
    ) -> None:
        await unique(queue)
        other = await session()
        change = queue.db.transaction(isolation="repeatable_read")
        await change.start()
        await queue.count()
        await other.enqueue("report", {"number": 1})
        with refused("40001"):
            await queue.enqueue("report", {"number": 1})
        await change.rollback()
        assert await queue.count() == 1


class TestTheLostUpdate:
    """A producer that was answered with a waiting job is promised a run that sees its change."""

    async def enqueue_by(self, queue: Queue, how: str) -> None:
        if how == "enqueue":
            await queue.enqueue("report", {"number": 1})
        elif how == "enqueue_many":
            await queue.enqueue_many("report", {"number": 1})
        else:
            await queue.db.execute(
                "insert into worker.job_queue (job_type, payload) values ('report', '{\"number\": 1}')"
            )

    @pytest.mark.parametrize("how", ["enqueue", "enqueue_many", "insert"])
    async def test_a_job_that_ran_before_the_commit_is_followed_by_another(
        self, queue: Queue, session: Session, how: str
    ) -> None:
        await unique(queue)
        producer = await session()
        await queue.enqueue("report", {"number": 1, "text": "x"}, tenant_id="t1")
        await queue.enqueue("report", {"number": 1}, priority=8)
        change = producer.db.transaction()
        await change.start()
        await self.enqueue_by(producer, how)
        for job in await queue.take():
            assert await queue.settle(verdict(job)) == {job["id"]: "completed"}
        assert await queue.sweep() == 0
        await change.commit()
        assert await queue.sweep() == 1
        (again,) = await queue.take()
        assert (again["payload"], again["tenant_id"], again["priority"]) == ('{"number": 1}', None, 8)
        assert await queue.sweep() == 0
        assert await queue.count("worker.kept") == 0

    async def test_one_producer_met_an_uncommitted_holder_in_a_batch(self, queue: Queue, session: Session) -> None:
        await unique(queue)
        producer, other, observer = await session(), await session(), await session()
        first = other.db.transaction()
        await first.start()
        holder = await other.enqueue("report", {"number": 1})
        change = producer.db.transaction()
        await change.start()
        async with blocked(observer, producer, producer.enqueue_many("report", {"number": 1})) as added:
            await first.commit()
            assert await added == 0
        await queue.settle(*[verdict(job) for job in await queue.take()])
        await change.commit()
        await queue.sweep()
        assert [job["id"] > holder for job in await queue.take()] == [True]

    async def test_many_producers_share_the_one_job_that_follows(self, queue: Queue, session: Session) -> None:
        await unique(queue)
        await queue.enqueue("report", {"number": 1})
        producers = [await session() for _ in range(3)]
        changes = [producer.db.transaction() for producer in producers]
        for producer, change in zip(producers, changes, strict=True):
            await change.start()
            await producer.enqueue("report", {"number": 1})
        await queue.take()
        for change in changes:
            await change.commit()
        await queue.sweep()
        assert len(await queue.take()) == 1

    async def test_a_job_that_starts_after_the_commit_is_not_followed(self, queue: Queue) -> None:
        await unique(queue)
        holder = await queue.enqueue("report", {"number": 1})
        assert await queue.enqueue("report", {"number": 1}) == holder
        (job,) = await queue.take()
        await queue.settle(verdict(job))
        assert await queue.sweep() == 0
        assert (await queue.count(), await queue.count("worker.kept")) == (1, 0)

    async def test_a_rolled_back_producer_is_promised_nothing(self, queue: Queue, session: Session) -> None:
        await unique(queue)
        producer = await session()
        await queue.enqueue("report", {"number": 1})
        change = producer.db.transaction()
        await change.start()
        await producer.enqueue("report", {"number": 1})
        await queue.settle(*[verdict(job) for job in await queue.take()])
        await change.rollback()
        assert await queue.sweep() == 0
        assert await queue.count() == 1


class TestTemplates:
    @pytest.mark.parametrize(
        ("text", "filled"),
        [
            ("plain text", "plain text"),
            ("", ""),
            ("{name}", "ada"),
            ("a:{name}:{number}!", "a:ada:7!"),
            ("{tenant_id}/{job_type}/{correlation_id}/{id}", "t1/report/c1/42"),
            ("{{{name}}}", "{ada}"),
            ("{{name}}", "{name}"),
            ("}}{{", "}{"),
            ("{flag}{list}", "true[1, 2]"),
            ("{missing}", None),
            ("{nothing}", None),
            ("ü {name} ✓", "ü ada ✓"),
            ("%s %I \\1 $1 {name}", "%s %I \\1 $1 ada"),
        ],
    )
    async def test_names_are_columns_or_payload_keys(self, queue: Queue, text: str, filled: str | None) -> None:
        job = """jsonb_populate_record(null::worker.job_queue, '{"id": 42, "job_type": "report", "tenant_id": "t1",
            "correlation_id": "c1", "payload": {"name": "ada", "number": 7, "tenant_id": "forged", "id": "forged",
            "flag": true, "list": [1, 2], "nothing": null}}')"""
        assert await queue.db.fetchval(f"select worker.fill($1, {job})", text) == filled

    async def test_a_value_is_never_read_as_a_template(self, queue: Queue) -> None:
        await unique(queue)
        row = await queue.row(await queue.enqueue("report", {"number": "{tenant_id}}}"}))
        assert row["unique_key"] == "report:{tenant_id}}}"

    @pytest.mark.parametrize("payload", [{}, {"number": None}, [1], "text", 5, None])
    async def test_a_missing_name_makes_a_row_that_is_failed_and_never_runs(
        self, queue: Queue, payload: object
    ) -> None:
        await unique(queue)
        row = await queue.row(await queue.enqueue("report", payload))
        assert (row["status"], row["finish_reason"]) == ("failed", "invalid")
        assert (row["trouble"], row["held_key"]) == (True, None)
        assert "unique_key" in row["errors"]
        assert "report:{number}" in row["errors"]
        assert (await queue.claim()).ids == []

    async def test_a_missing_name_of_the_concurrency_key_too(self, queue: Queue) -> None:
        await queue.declare("report", concurrency_key="{line}")
        row = await queue.row(await queue.enqueue("report"))
        assert (row["status"], row["finish_reason"]) == ("failed", "invalid")
        assert "concurrency_key" in row["errors"]
