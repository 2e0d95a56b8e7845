"""Claim: which rows are taken, how many, in which order, and for whom it never waits."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.sql.conftest import NOON, Queue, blocked, refused, verdict

Session = Callable[..., Awaitable[Queue]]
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


class TestWhich:
    async def test_priority_is_strict_also_across_types_then_due_time_then_id(self, queue: Queue) -> None:
        await queue.clock(NOON)
        for name in ("a", "b"):
            await queue.declare(name)
        wanted = []
        for priority in (900, 100, 5, 0):
            line = [
                await queue.enqueue("ab"[priority % 10 == 0], priority=priority, delay=-SECOND * back)
                for back in (0, 5, 5, 9)
            ]
            wanted = [line[3], line[1], line[2], line[0], *wanted]
        taken = [(await queue.claim(1)).ids[0] for _ in wanted]
        assert taken == wanted

    async def test_the_answer_is_in_the_order_of_the_claim(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare()
        ids = {p: await queue.enqueue(priority=p) for p in (300, 200, 500, 100, 400)}
        early = await queue.enqueue(priority=300, delay=-HOUR)
        assert (await queue.claim()).ids == [ids[100], ids[200], early, ids[300], ids[400], ids[500]]

    async def test_inside_one_priority_one_types_backlog_does_not_hide_another_type(self, queue: Queue) -> None:
        for name in ("many", "few"):
            await queue.declare(name)
        await queue.enqueue_many("many", *[{}] * 300)
        few = await queue.enqueue("few")
        for _ in range(20):
            if few in (await queue.claim(10)).ids:
                return
        pytest.fail("not claimed among twenty batches")  # by chance once in a million

    async def test_only_what_is_due(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare()
        due = await queue.enqueue(scheduled_at=NOON)
        await queue.enqueue(scheduled_at=NOON + timedelta(microseconds=1), priority=0)
        assert (await queue.claim()).ids == [due]

    async def test_paused_disabled_undeclared_unasked_and_expired_rows_stay(self, queue: Queue) -> None:
        await queue.clock(NOON)
        for name in ("good", "paused", "disabled", "unasked"):
            await queue.declare(name, enabled=name != "disabled")
        await queue.db.execute("update worker.job_type set paused = true where name = 'paused'")
        good = await queue.enqueue("good")
        for name in ("paused", "disabled", "unasked", "undeclared"):
            await queue.enqueue(name)
        await queue.enqueue("good", expires_at=NOON)
        asked = ["good", "paused", "disabled", "undeclared"]
        claim = await queue.claim(types=asked)
        assert (claim.ids, claim.next_due) == ([good], None)

    async def test_an_expired_row_in_front_does_not_hide_the_one_behind(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare()
        await queue.enqueue(expires_at=NOON, priority=0)
        await queue.enqueue(expires_at=NOON)
        good = await queue.enqueue()
        assert (await queue.claim(1)).ids == [good]

    @pytest.mark.parametrize("n", [0, 1, 7, 20])
    async def test_takes_up_to_n(self, queue: Queue, n: int) -> None:
        await queue.declare()
        await queue.enqueue_many("plain", *[{}] * 10)
        assert len((await queue.claim(n)).ids) == min(n, 10)


class TestNextDue:
    async def test_is_said_of_future_rows_when_the_batch_is_short(self, queue: Queue) -> None:
        await queue.clock(NOON)
        for name in ("a", "b", "paused"):
            await queue.declare(name)
        await queue.db.execute("update worker.job_type set paused = true where name = 'paused'")
        await queue.enqueue("a", delay=90 * SECOND)
        await queue.enqueue("b", delay=30 * SECOND, priority=900)
        await queue.enqueue("paused", delay=SECOND)
        assert (await queue.claim(1)).next_due == 30.0

    async def test_is_not_looked_for_when_the_batch_is_full(self, queue: Queue) -> None:
        await queue.declare()
        await queue.enqueue()
        await queue.enqueue(delay=HOUR)
        claim = await queue.claim(1)
        assert (len(claim.ids), claim.next_due) == (1, None)

    async def test_an_overdue_row_that_cannot_be_claimed_does_not_make_it_zero(
        self, queue: Queue, session: Session
    ) -> None:
        await queue.clock(NOON)
        await queue.declare()
        locked = await queue.enqueue(delay=-HOUR)
        await queue.enqueue(delay=HOUR)
        other = await session()
        async with other.db.transaction():
            await other.db.execute("select from worker.job_queue where id = $1 for update", locked)
            claim = await queue.claim()
        assert (claim.ids, claim.next_due) == ([], 3600.0)


class TestWhatItWrites:
    async def test_a_running_row_with_a_claim_of_its_own(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report", deadline=60, max_attempts=3)
        given = {"tenant_id": "t1", "correlation_id": "c1", "source": "match", "concurrency_key": "k", "priority": 7}
        job = await queue.enqueue("report", {"n": 1}, **given)
        await queue.clock(NOON + SECOND)
        (claimed,) = await queue.take(batch=5)
        row = await queue.row(job)
        assert dict(claimed) == {
            **given, "id": job, "job_type": "report", "payload": '{"n": 1}', "attempt": 1, "max_attempts": 3,
            "claim": row["claim"], "traceparent": None, "parent_id": None, "rescues": 0, "snoozes": 0, "waited": 1.0,
            "remaining": 60.0, "counted": True,
        }  # fmt: skip
        assert (row["status"], row["queued"], row["parked"], row["batch"]) == ("running", False, False, 5)
        assert (row["claimed_by"], row["started_at"]) == (queue.me, NOON + SECOND)

    async def test_a_claim_of_the_former_edition_ends_with_the_function_it_began_with(self, queue: Queue) -> None:
        await queue.declare("report", deadline=60)
        job = await queue.enqueue("report")
        await queue.register()
        rows = await queue.db.fetch(
            "select * from unnest(worker.start(array(select ctid from worker.job_queue), $1, 1, worker.now()))",
            queue.me,
        )
        assert [(row["id"], row["attempt"], row["remaining"]) for row in rows] == [(job, 1, 60.0)]

    async def test_start_and_deadline_are_those_of_the_first_time(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report", deadline=60)
        job = await queue.enqueue("report")
        (first,) = await queue.take()
        await queue.settle(verdict(first, "pending", error="E"))
        await queue.declare("report", deadline=6000)
        await queue.clock(NOON + 10 * SECOND)
        (second,) = await queue.take()
        row = await queue.row(job)
        assert (row["started_at"], row["deadline_at"]) == (NOON, NOON + 60 * SECOND)
        assert (second["remaining"], second["attempt"], second["waited"]) == (50.0, 2, 10.0)

    @pytest.mark.parametrize(("unique_while", "held"), [("waiting", None), ("active", "one")])
    async def test_a_start_frees_the_key_that_is_held_while_waiting(
        self, queue: Queue, unique_while: str, held: str | None
    ) -> None:
        await queue.declare("report", unique_key="one", unique_while=unique_while)
        job = await queue.enqueue("report")
        assert (await queue.row(job))["held_key"] == "one"
        await queue.claim()
        row = await queue.row(job)
        assert (row["held_key"], row["unique_key"]) == (held, "one")

    async def test_claims_are_never_used_twice(self, queue: Queue) -> None:
        await queue.declare()
        await queue.enqueue_many("plain", *[{}] * 20)
        seen: list[int] = []
        for _ in range(3):
            jobs = await queue.take()
            seen += [job["claim"] for job in jobs]
            await queue.settle(*[verdict(job, "pending") for job in jobs])
        assert len(seen) == len(set(seen)) == 60

    async def test_the_snapshot_of_the_look_is_told(self, queue: Queue, session: Session) -> None:
        await queue.declare()
        other = await session()
        async with other.db.transaction():
            open_xid = int(await other.db.fetchval("select pg_current_xact_id()::text"))
            claim = await queue.claim()
        assert claim.xmin <= open_xid < claim.xmax


class TestExactlyN:
    """No plan may lock or claim more rows than were asked for."""

    @pytest.mark.parametrize("analyzed", ["empty", "full", "never"])
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"enable_indexscan": "off", "enable_bitmapscan": "off", "enable_indexonlyscan": "off"},
            {"enable_seqscan": "off", "enable_nestloop": "off"},
            {"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_sort": "off"},
            {"enable_material": "off", "enable_memoize": "off"},
            {"random_page_cost": "1000", "cpu_tuple_cost": "100"},
            {"jit": "on", "jit_above_cost": "0", "max_parallel_workers_per_gather": "4", "parallel_setup_cost": "0"},
        ],
        ids=lambda settings: ",".join(settings) or "as it is",
    )
    async def test_whatever_the_planner_believes(
        self, queue: Queue, session: Session, settings: dict[str, str], analyzed: str
    ) -> None:
        for name in ("a", "b", "c"):
            await queue.declare(name)
        if analyzed == "empty":
            await queue.db.execute("analyze worker.job_queue")
        await queue.db.execute(
            "insert into worker.job_queue (job_type, priority) select (array['a', 'b', 'c'])[1 + n % 3], n % 4"
            " from generate_series(1, 600) n"
        )
        if analyzed == "full":
            await queue.db.execute("analyze worker.job_queue, worker.job_type")
        claimer = await session(**settings)
        claimer.me = await queue.register()
        change = claimer.db.transaction()
        await change.start()
        claim = await claimer.claim(50)
        assert len(set(claim.ids)) == len(claim.ids) == 50
        # Whatever the claimer holds, another session cannot lock.
        free = await queue.db.fetchval(
            "select count(*) from (select from worker.job_queue where queued for update skip locked) free"
        )
        await change.commit()
        assert free == 550
        assert await queue.db.fetchval("select count(*) from worker.job_queue where status = 'running'") == 50


class TestNumbers:
    """Claim calls are numbered, so that one whose answer was lost can be undone."""

    async def test_unclaim_gives_back_what_the_call_took_and_counts_no_attempt(self, queue: Queue) -> None:
        await queue.declare(concurrency_key="{k}")
        mine = [await queue.enqueue(payload={"k": k}) for k in (1, 2)]
        await queue.claim(1, batch=1)
        await queue.claim(1, batch=2)
        assert await queue.db.fetchval("select worker.unclaim($1, 2)", queue.me) == 1
        rows = [await queue.row(id) for id in mine]
        assert [row["status"] for row in rows] == ["running", "pending"]
        assert (rows[1]["attempt"], rows[1]["claimed_by"], rows[1]["errors"]) == (0, None, None)
        assert await queue.db.fetch("select key from worker.key_slot") == [("1",)]

    async def test_a_closed_number_is_refused_when_its_claim_arrives_late(self, queue: Queue) -> None:
        await queue.declare()
        job = await queue.enqueue()
        await queue.register()
        assert await queue.db.fetchval("select worker.unclaim($1, 3)", queue.me) == 0
        with refused("WK007"):
            await queue.claim(batch=3)
        assert (await queue.row(job))["status"] == "pending"
        assert (await queue.claim(batch=4)).ids == [job]

    async def test_the_last_hundred_closed_numbers_are_remembered(self, queue: Queue) -> None:
        await queue.register()
        for number in range(1, 151):
            await queue.db.execute("select worker.unclaim($1, $2)", queue.me, number)
        for number in (51, 150):
            with refused("WK007"):
                await queue.claim(batch=number)
        closed = await queue.db.fetchval("select closed from worker.process where id = $1", queue.me)
        assert len(closed) <= 101

    async def test_unclaim_waits_for_the_call_it_closes_and_then_finds_its_rows(
        self, queue: Queue, session: Session
    ) -> None:
        await queue.declare()
        job = await queue.enqueue()
        await queue.register()
        orphan, observer = await session(), await session()
        change = orphan.db.transaction()
        await change.start()
        assert (await orphan.claim(me=queue.me, batch=1)).ids == [job]
        call = queue.db.fetchval("select worker.unclaim($1, 1)", queue.me)
        async with blocked(observer, queue, call) as given_back:
            await change.commit()
            assert await given_back == 1
        assert (await queue.row(job))["status"] == "pending"

    async def test_a_dead_or_unknown_process_claims_nothing(self, queue: Queue) -> None:
        await queue.declare()
        await queue.enqueue()
        await queue.register()
        judge = await queue.register()
        await queue.db.fetchval("select worker.mark_dead($1, $2)", judge, queue.me)
        with refused("WK006"):
            await queue.claim()
        with refused("WK006"):
            await queue.claim(me=999)
        with refused("WK006"):
            await queue.rescue(queue.me) or await queue.db.fetch("select worker.enter($1, 1)", queue.me)

    async def test_of_others_rows_nothing_is_given_back(self, queue: Queue) -> None:
        await queue.declare()
        job = await queue.enqueue()
        await queue.claim(batch=1)
        other = await queue.register()
        assert await queue.db.fetchval("select worker.unclaim($1, 1)", other) == 0
        assert (await queue.row(job))["status"] == "running"


class TestOtherSessions:
    async def test_locked_rows_are_passed_by(self, queue: Queue, session: Session) -> None:
        await queue.declare()
        locked, free = await queue.enqueue(), await queue.enqueue()
        other = await session()
        async with other.db.transaction():
            await other.db.execute("select from worker.job_queue where id = $1 for update", locked)
            assert (await queue.claim()).ids == [free]
        assert (await queue.claim()).ids == [locked]

    @pytest.mark.parametrize(
        "producer_does",
        [
            "select worker.enqueue('report', '{\"n\": 1}', priority => 1)",
            "select worker.enqueue('report', '{\"n\": 1}')",
            "select worker.enqueue('report', '{\"n\": 1}', on_conflict => 'replace')",
            "select worker.enqueue('report', '{\"n\": 7}')",
            "select worker.cancel(min(id)) from worker.job_queue",
            "insert into worker.job_queue (job_type, payload) values ('report', '{\"n\": 1}')",
        ],
    )
    async def test_a_producers_open_transaction_is_never_waited_for(
        self, queue: Queue, session: Session, producer_does: str
    ) -> None:
        await queue.declare("report", unique_key="{n}", concurrency_key="{n}")
        await queue.enqueue("report", {"n": 1})
        other = await queue.enqueue("report", {"n": 2})
        producer = await session()
        change = producer.db.transaction()
        await change.start()
        await producer.db.execute(producer_does)
        # One statement of another session sees it: the claim ends although the producer never commits.
        async with asyncio.timeout(10):
            claim = await queue.claim()
        assert other in claim.ids
        await change.rollback()

    async def test_two_claimers_share_out_the_rows(self, queue: Queue, session: Session) -> None:
        await queue.declare()
        await queue.enqueue_many("plain", *[{}] * 200)
        claimers = [await session() for _ in range(4)]
        for claimer in claimers:
            await claimer.register()
        taken: list[int] = []

        async def drain(claimer: Queue) -> None:
            while ids := (await claimer.claim(7)).ids:
                taken.extend(ids)

        await asyncio.gather(*map(drain, claimers))
        assert len(taken) == len(set(taken)) == 200
