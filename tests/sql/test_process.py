"""Processes: who is alive, who is dead for ever, and what becomes of what the dead held."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, blocked, refused, until_blocked, verdict

Session = Callable[..., Awaitable[Queue]]
SECOND = timedelta(seconds=1)


async def beating(queue: Queue, connection: Queue | None = None, **named: object) -> int:
    """A process whose beat is the given connection, or one that is gone already."""
    process = await queue.register(**named)
    if connection is not None:
        await connection.db.execute("select worker.register_backend($1, 'beat')", process)
    return process


async def suspects(queue: Queue, me: int) -> dict[int, tuple[bool, bool]]:
    rows = await queue.db.fetch("select * from worker.suspects($1)", me)
    return {row["id"]: (row["missing"], row["lapsed"]) for row in rows}


async def declare_dead(queue: Queue, suspect: int, by: int) -> bool:
    return await queue.db.fetchval("select worker.declare_dead($1, $2)", by, suspect)


async def gone(observer: Queue, pid: int) -> None:
    """Return once a session has left pg_stat_activity."""
    while await observer.db.fetchval("select count(*) from pg_stat_activity where pid = $1", pid):
        pass


async def held(queue: Queue, process: int, count: int = 1, batch: int | None = None) -> list[asyncpg.Record]:
    await queue.declare("report")
    await queue.enqueue_many("report", *[{}] * count)
    return await queue.take(count, me=process, batch=batch)


async def chores(queue: Queue, *types: str) -> tuple[bool, bool, float | None]:
    row = await queue.db.fetchrow("select * from worker.chores($1)", list(types) or ["report"])
    return row["strays"], row["orphans"], row["due"]


class TestChores:
    async def test_an_empty_queue_has_none(self, queue: Queue) -> None:
        assert await chores(queue) == (False, False, None)

    async def test_a_note_is_a_stray(self, queue: Queue) -> None:
        await queue.declare("report", unique_key="k")
        await queue.enqueue_many("report", {}, {})
        assert (await chores(queue))[0]

    async def test_an_expired_row_is_a_stray_and_one_that_will_expire_is_none(self, queue: Queue) -> None:
        await queue.clock(NOON)
        await queue.declare("report")
        await queue.enqueue("report", expires_at=NOON + SECOND)
        assert not (await chores(queue))[0]
        await queue.clock(NOON + SECOND)
        assert (await chores(queue))[0]
        await queue.db.execute("select worker.sweep()")
        assert not (await chores(queue))[0]

    async def test_a_parked_row_is_a_stray(self, queue: Queue) -> None:
        await queue.declare("report", concurrency_key="k")
        await queue.enqueue_many("report", {}, {})
        await queue.take(2)
        assert (await chores(queue))[0]

    async def test_what_a_dead_process_held_is_orphaned_until_it_is_taken_over(self, queue: Queue) -> None:
        me, dead = await queue.register(), await queue.register()
        await held(queue, dead)
        assert not (await chores(queue))[1]
        assert await declare_dead(queue, dead, by=me)
        assert (await chores(queue))[1]
        await queue.rescue(me)
        assert not (await chores(queue))[1]

    @pytest.mark.parametrize("due", [-3.0, 0.0, 90.0])
    async def test_the_first_pending_row_is_told_be_it_overdue_or_later(self, queue: Queue, due: float) -> None:
        await queue.clock(NOON)
        await queue.declare("report")
        for seconds in (due, due + 1):
            await queue.enqueue("report", scheduled_at=NOON + seconds * SECOND)
        assert (await chores(queue, "report", "other"))[2] == due
        assert (await chores(queue, "other"))[2] is None

    async def test_rows_of_a_paused_type_are_not_due(self, queue: Queue) -> None:
        await queue.declare("report")
        await queue.enqueue("report")
        await queue.db.execute("select worker.pause('report')")
        assert (await chores(queue))[2] is None

    async def test_a_locked_table_is_asked_again_later(self, queue: Queue, session: Session) -> None:
        other = await session()
        async with other.db.transaction():
            await other.db.execute("lock table worker.job_queue in access exclusive mode")
            me = await queue.register()
            row = await queue.db.fetchrow("select * from worker.beat_and_look($1, 1, '{report}')", me)
            assert (row["alive"], row["strays"], row["due"]) == (True, False, None)


class TestBeat:
    async def test_renews_the_lease_and_says_that_the_process_lives(self, queue: Queue) -> None:
        await queue.clock(NOON)
        me = await queue.register(lease=30)
        await queue.clock(NOON + 20 * SECOND)
        assert tuple(await queue.db.fetchrow("select * from worker.beat($1, 1)", me)) == (True, [])
        row = await queue.db.fetchrow("select beat_at, lease_until from worker.process")
        assert tuple(row) == (NOON + 20 * SECOND, NOON + 50 * SECOND)

    async def test_a_locked_queue_does_not_cost_the_lease(self, queue: Queue, session: Session) -> None:
        me, migration = await queue.register(), await session()
        before = await queue.db.fetchval("select lease_until from worker.process")
        async with migration.db.transaction():
            await migration.db.execute("lock table worker.job_queue in access exclusive mode")
            assert tuple(await queue.db.fetchrow("select * from worker.beat($1, 1)", me)) == (True, [])
        assert await queue.db.fetchval("select lease_until from worker.process") > before

    async def test_giving_back_waits_less_than_the_beat_whose_row_it_locks(self, queue: Queue) -> None:
        waits = dict(
            await queue.db.fetch(
                "select p.proname::text, option.value::interval from pg_proc p"
                " cross join lateral pg_options_to_table(p.proconfig) as option (name, value)"
                " where p.pronamespace = 'worker'::regnamespace and option.name = 'lock_timeout'"
            )
        )
        assert waits["unclaim"] < waits["beat"]

    async def test_tells_the_dead_that_it_is_dead_and_renews_nothing(self, queue: Queue) -> None:
        me, judge = await queue.register(), await queue.register()
        assert await queue.db.fetchval("select worker.mark_dead($1, $2)", judge, me)
        before = await queue.db.fetchrow("select * from worker.process where id = $1", me)
        assert (await queue.db.fetchrow("select * from worker.beat($1, 1)", me))["alive"] is False
        assert await queue.db.fetchrow("select * from worker.process where id = $1", me) == before

    async def test_the_lowest_open_call_never_goes_back(self, queue: Queue) -> None:
        me = await queue.register()
        for told, kept in ((5, 5), (3, 5), (9, 9)):
            await queue.db.execute("select alive from worker.beat($1, $2)", me, told)
            assert await queue.db.fetchval("select open_batch from worker.process") == kept

    async def test_hears_only_of_its_own_running_jobs(self, queue: Queue) -> None:
        me, other = await queue.register(), await queue.register()
        mine, theirs = await held(queue, me), await held(queue, other)
        for job in mine + theirs:
            await queue.db.execute("select worker.cancel($1)", job["id"])
        beat = "select stops from worker.beat($1, 1)"
        assert await queue.db.fetchval(beat, me) == [mine[0]["claim"]]
        await queue.settle(verdict(mine[0], "cancelled"))
        assert await queue.db.fetchval(beat, me) == []

    async def test_passes_by_a_claim_that_is_in_flight(self, queue: Queue, session: Session) -> None:
        me = await queue.register()
        claimer = await session()
        async with claimer.db.transaction():
            await claimer.claim(me=me)
            await queue.db.execute("set lock_timeout = '1ms'")
            await queue.db.execute("update worker.process set beat_at = beat_at where id = $1", me)
            assert (await queue.db.fetchrow("select * from worker.beat($1, 1)", me))["alive"] is True


class TestSuspects:
    async def test_a_process_whose_session_is_gone_is_missing(self, queue: Queue, session: Session) -> None:
        alive, ends, me = await session(), await session(), await queue.register()
        lives, missing = await beating(queue, alive), await beating(queue, ends)
        assert await suspects(queue, me) == {lives: (False, False), missing: (False, False)}
        pid = ends.pid
        await ends.db.close()
        await gone(queue, pid)
        assert await suspects(queue, me) == {lives: (False, False), missing: (True, False)}

    async def test_a_reused_pid_with_another_start_is_missing(self, queue: Queue, session: Session) -> None:
        other, me = await session(), await queue.register()
        process = await beating(queue, other)
        await queue.db.execute("update worker.backend set backend_start = backend_start - interval '1 day'")
        assert await suspects(queue, me) == {process: (True, False)}

    async def test_a_start_that_may_not_be_seen_counts_as_alive(self, queue: Queue, session: Session) -> None:
        other, judge, me = await session(), await session("runner"), await queue.register()
        process = await beating(queue, other)
        hidden = "select backend_start is null from pg_stat_activity where pid = $1"
        assert await judge.db.fetchval(hidden, other.pid)
        assert await suspects(judge, me) == {process: (False, False)}

    async def test_only_the_session_of_the_beat_counts(self, queue: Queue, session: Session) -> None:
        beat, steps, me = await session(), await session(), await queue.register()
        process = await beating(queue, beat)
        await steps.db.execute("select worker.register_backend($1, 'step')", process)
        pid = beat.pid
        await beat.db.close()
        await gone(queue, pid)
        assert await suspects(queue, me) == {process: (True, False)}

    async def test_a_new_beat_session_replaces_the_old(self, queue: Queue, session: Session) -> None:
        old, new, me = await session(), await session(), await queue.register()
        process = await beating(queue, old)
        await new.db.execute("select worker.register_backend($1, 'beat')", process)
        assert await queue.db.fetch("select pid from worker.backend") == [(new.pid,)]
        pid = old.pid
        await old.db.close()
        await gone(queue, pid)
        assert await suspects(queue, me) == {process: (False, False)}

    async def test_behind_a_pooler_only_the_lease_speaks(self, queue: Queue) -> None:
        await queue.clock(NOON)
        me = await queue.register(lease=300)
        pooled = await queue.register(lease=30, pooled=True)
        assert await suspects(queue, me) == {pooled: (False, False)}
        await queue.clock(NOON + 31 * SECOND)
        assert await suspects(queue, me) == {pooled: (False, True)}

    async def test_neither_oneself_nor_the_stopped_nor_the_dead(self, queue: Queue) -> None:
        me, stopped, dead = [await queue.register() for _ in range(3)]
        await queue.db.execute("select worker.leave($1)", stopped)
        assert await queue.db.fetchval("select worker.mark_dead($1, $2)", me, dead)
        assert await suspects(queue, me) == {}


class TestDeath:
    async def test_is_declared_of_the_missing_with_judge_and_instant(self, queue: Queue) -> None:
        me, suspect = await queue.register(), await queue.register()
        await queue.clock(NOON)
        assert await declare_dead(queue, suspect, by=me)
        row = await queue.db.fetchrow("select dead_at, dead_by from worker.process where id = $1", suspect)
        assert tuple(row) == (NOON, me)

    async def test_is_not_declared_of_one_that_came_back(self, queue: Queue, session: Session) -> None:
        me, other = await queue.register(), await session()
        suspect = await beating(queue)
        assert await suspects(queue, me) == {suspect: (True, False)}
        await other.db.execute("select worker.register_backend($1, 'beat')", suspect)
        assert not await declare_dead(queue, suspect, by=me)
        assert await queue.db.fetchval("select dead_at from worker.process where id = $1", suspect) is None

    async def test_is_declared_once_and_for_ever(self, queue: Queue, session: Session) -> None:
        me, third = await queue.register(), await queue.register()
        suspect = await queue.register()
        assert await declare_dead(queue, suspect, by=me)
        assert not await declare_dead(queue, suspect, by=third)
        await (await session()).db.execute("select worker.register_backend($1, 'beat')", suspect)
        assert (await queue.db.fetchrow("select * from worker.beat($1, 1)", suspect))["alive"] is False
        with refused("WK006"):
            await queue.claim(me=suspect)

    async def test_is_not_for_the_dead_to_declare_nor_of_oneself(self, queue: Queue) -> None:
        me, other, third = [await queue.register() for _ in range(3)]
        assert not await declare_dead(queue, me, by=me)
        assert await declare_dead(queue, me, by=other)
        assert not await declare_dead(queue, third, by=me)

    async def test_of_two_that_judge_each_other_one_dies(self, queue: Queue, session: Session) -> None:
        one, two = await queue.register(), await queue.register()
        other, observer = await session(), await session()
        change = queue.db.transaction()
        await change.start()
        assert await declare_dead(queue, two, by=one)
        async with blocked(observer, other, declare_dead(other, one, by=two)) as answer:
            await change.commit()
            assert await answer is False
        dead = await queue.db.fetch("select id from worker.process where dead_at is not null")
        assert dead == [(two,)]

    async def test_waits_for_a_claim_in_flight_and_then_finds_its_rows(self, queue: Queue, session: Session) -> None:
        await queue.declare("report")
        job = await queue.enqueue("report")
        me, suspect = await queue.register(), await queue.register()
        claimer, judge = await session(), await session()
        change = claimer.db.transaction()
        await change.start()
        assert (await claimer.claim(me=suspect)).ids == [job]
        async with blocked(queue, judge, declare_dead(judge, suspect, by=me)) as dead:
            await change.commit()
            assert await dead
        assert [row["id"] for row in await queue.rescue(me)] == [job]

    async def test_ends_a_claim_that_would_hold_its_row_for_ever(self, queue: Queue, session: Session) -> None:
        """Its client is frozen and never reads the answer: the first look ends it, the next one declares."""
        await queue.declare("report")
        await queue.enqueue("report")
        me, suspect = await queue.register(), await queue.register()
        frozen, judge = await session(), await session()
        await frozen.db.execute("select worker.register_backend($1, 'control')", suspect)
        pid = frozen.pid
        await frozen.db.execute("begin")
        await frozen.claim(me=suspect, types=["report"])
        assert not await declare_dead(judge, suspect, by=me)
        await gone(queue, pid)
        assert await declare_dead(judge, suspect, by=me)
        assert set((await queue.statuses()).values()) == {"pending"}

    async def test_a_claim_that_comes_while_it_is_declared_waits_and_is_refused(
        self, queue: Queue, session: Session
    ) -> None:
        await queue.declare("report")
        job = await queue.enqueue("report")
        me, suspect = await queue.register(), await queue.register()
        claimer, observer = await session(), await session()
        change = queue.db.transaction()
        await change.start()
        assert await declare_dead(queue, suspect, by=me)
        async with blocked(observer, claimer, claimer.claim(me=suspect, types=["report"])) as claim:
            await change.commit()
            with refused("WK006"):
                await claim
        assert (await queue.row(job))["status"] == "pending"

    async def test_ends_the_registered_sessions_and_no_others(self, queue: Queue, session: Session) -> None:
        me, suspect = await queue.register(lease=300), await queue.register()
        control, reused, stranger = [await session() for _ in range(3)]
        for each in (control, reused):
            await each.db.execute("select worker.register_backend($1, 'step')", suspect)
        await queue.db.execute(
            "update worker.backend set backend_start = backend_start - interval '1 hour' where pid = $1", reused.pid
        )
        pid = control.pid
        assert await declare_dead(queue, suspect, by=me)
        await gone(queue, pid)
        assert [await each.db.fetchval("select 1") for each in (reused, stranger)] == [1, 1]

    async def test_who_leaves_is_not_suspected_and_has_no_sessions(self, queue: Queue, session: Session) -> None:
        me, other = await queue.register(), await session()
        leaves = await beating(queue, other)
        await queue.db.execute("select worker.leave($1)", leaves)
        assert await queue.count("worker.backend") == 0
        assert not await declare_dead(queue, leaves, by=me)


class TestPromotion:
    """A standby took over: what the old server answered last may never have happened here."""

    @pytest.fixture
    async def me(self, queue: Queue) -> int:
        me = await queue.register()
        queue.held = await held(queue, me, 2)
        assert await queue.db.fetchval("update worker.process set timeline = '00000000' returning id") == me
        return me

    @pytest.mark.parametrize(
        "call", ["select * from worker.beat($1, 1)", "select * from worker.register_backend($1, 'control')"]
    )
    async def test_the_first_sign_of_a_process_ends_it_and_gives_back_what_it_holds(
        self, queue: Queue, me: int, call: str
    ) -> None:
        await queue.db.fetchrow(call, me)
        assert (await queue.db.fetchrow("select * from worker.beat($1, 1)", me))["alive"] is False
        rows = await queue.db.fetch("select status, attempt, rescues from worker.job_queue")
        assert [tuple(row) for row in rows] == [("pending", 0, 0)] * 2
        with refused("WK006"):
            await queue.claim(me=me)

    async def test_no_claim_number_of_the_old_server_is_given_out_again(self, queue: Queue, me: int) -> None:
        await queue.db.execute("select alive from worker.beat($1, 1)", me)
        assert await queue.settle(*map(verdict, queue.held), me=me) == {}
        other = await queue.register()
        assert min(job["claim"] for job in await queue.take(2, me=other)) > queue.held[-1]["claim"] + 100_000

    async def test_no_number_of_a_job_that_was_lost_is_given_to_another(self, queue: Queue, me: int) -> None:
        """A receiver that has seen the call of the lost one would drop the other's."""
        last = await queue.enqueue()
        await queue.db.execute("select alive from worker.beat($1, 1)", me)
        assert await queue.enqueue() > last + 100_000

    async def test_a_process_that_cannot_tell_lives_on(self, queue: Queue, me: int) -> None:
        await queue.db.execute("update worker.process set timeline = null")
        assert (await queue.db.fetchrow("select * from worker.beat($1, 1)", me))["alive"] is True

    async def test_the_timeline_is_noted_where_it_can_be_told(self, queue: Queue) -> None:
        me = await queue.register()
        assert len(await queue.db.fetchval("select timeline from worker.process where id = $1", me)) == 8


class TestStopBackend:
    async def test_cancels_the_statement_of_one_session(self, queue: Queue, session: Session) -> None:
        runner, gate = await session(), await session()
        start = await runner.db.fetchval("select backend_start from pg_stat_activity where pid = pg_backend_pid()")
        await gate.db.execute("select pg_advisory_lock(1)")
        stop = "select worker.stop_backend($1, $2, $3)"
        pid = runner.pid
        async with blocked(queue, runner, runner.db.execute("select pg_advisory_lock(1)")) as task:
            assert await queue.db.fetchval(stop, pid, start - SECOND, True) is None
            await until_blocked(queue, runner)
            assert await queue.db.fetchval(stop, pid, start, False) is True
            with refused("57014"):
                await task
        assert await queue.db.fetchval(stop, pid, start, False) is None, "idle: there is no statement to cancel"
        assert await queue.db.fetchval(stop, pid, start, True) is True
        await gone(queue, pid)


class TestRescue:
    async def test_takes_the_rows_of_the_dead_under_new_claims(self, queue: Queue) -> None:
        await queue.clock(NOON)
        dead, me = await queue.register(), await queue.register()
        jobs = await held(queue, dead, 3)
        rescued = await queue.bury(dead, by=me)
        assert sorted(job["id"] for job in rescued) == sorted(job["id"] for job in jobs)
        assert not {job["claim"] for job in jobs} & {job["claim"] for job in rescued}
        assert {(job["attempt"], job["rescues"], job["counted"]) for job in rescued} == {(1, 1, True)}
        row = await queue.row(jobs[0]["id"])
        assert (row["status"], row["claimed_by"], row["phase"]) == ("running", me, "rescued")
        events = await queue.db.fetch("select job_id, event, detail from worker.job_event order by job_id")
        assert [(event["job_id"], event["event"]) for event in events] == [(job["id"], "rescue") for job in jobs]
        assert json.loads(events[0]["detail"]) == {"process": dead, "claim": jobs[0]["claim"], "by": me}

    async def test_each_row_once_only(self, queue: Queue) -> None:
        dead, me, third = [await queue.register() for _ in range(3)]
        await held(queue, dead, 3)
        assert len(await queue.bury(dead, by=me)) == 3
        assert await queue.rescue(me) == []
        assert await queue.rescue(third) == []
        assert await queue.db.fetchval("select emptied_at is not null from worker.process where id = $1", dead)

    async def test_two_rescuers_share_them_out(self, queue: Queue, session: Session) -> None:
        dead, me, third = [await queue.register() for _ in range(3)]
        jobs = await held(queue, dead, 4)
        other = await session()
        async with other.db.transaction():
            assert await other.db.fetchval("select worker.mark_dead($1, $2)", me, dead)
            first = await other.rescue(me, 3)
        second = await queue.rescue(third)
        assert sorted(job["id"] for job in [*first, *second]) == sorted(job["id"] for job in jobs)
        assert (len(first), len(second)) == (3, 1)

    async def test_rows_of_the_living_and_of_finished_jobs_are_left(self, queue: Queue) -> None:
        dead, me = await queue.register(), await queue.register()
        done, open_ = await held(queue, dead, 2)
        mine = await held(queue, me)
        await queue.settle(verdict(done))
        assert [job["id"] for job in await queue.bury(dead, by=me)] == [open_["id"]]
        assert (await queue.row(mine[0]["id"]))["claim"] == mine[0]["claim"]

    async def test_only_calls_that_the_process_still_held_are_looked_at(self, queue: Queue) -> None:
        dead, me = await queue.register(), await queue.register()
        await held(queue, dead, batch=1)
        second = await held(queue, dead, batch=2)
        await queue.db.execute("select alive from worker.beat($1, 2)", dead)
        assert [job["id"] for job in await queue.bury(dead, by=me)] == [second[0]["id"]]

    async def test_does_not_count_when_a_step_was_finished_under_the_claim(self, queue: Queue) -> None:
        dead, me = await queue.register(), await queue.register()
        progressed, stuck = await held(queue, dead, 2)
        for job, claim in ((progressed, progressed["claim"]), (stuck, 0)):
            await queue.db.execute(
                "insert into worker.job_step (job_id, name, status, claim) values ($1, 'a', 'completed', $2)",
                job["id"],
                claim,
            )
        rescued = {job["id"]: (job["counted"], job["rescues"]) for job in await queue.bury(dead, by=me)}
        assert rescued == {progressed["id"]: (False, 0), stuck["id"]: (True, 1)}

    async def test_counts_for_the_one_alone_that_was_to_run_alone(self, queue: Queue) -> None:
        dead, other, me = [await queue.register() for _ in range(3)]
        alone, waits = await held(queue, dead, 2)
        (elsewhere,) = await held(queue, other)
        await queue.db.execute("select worker.progress($1, $2, 'alone', null)", alone["id"], alone["claim"])
        rescued = await queue.bury(dead, by=me) + await queue.bury(other, by=me)
        assert {job["id"]: job["counted"] for job in rescued} == {
            alone["id"]: True, waits["id"]: False, elsewhere["id"]: True,
        }  # fmt: skip

    async def test_does_not_count_what_a_rescuer_took_and_had_not_settled(self, queue: Queue) -> None:
        dead, second, third = [await queue.register() for _ in range(3)]
        (job,) = await held(queue, dead)
        (first,) = await queue.bury(dead, by=second)
        (again,) = await queue.bury(second, by=third)
        assert [(each["counted"], each["rescues"]) for each in (first, again)] == [(True, 1), (False, 1)]
        await queue.settle(verdict(again, "pending"))
        fourth = await queue.register()
        (claimed,) = await queue.take(me=third)
        assert claimed["id"] == job["id"]
        (counted,) = await queue.bury(third, by=fourth)
        assert (counted["counted"], counted["rescues"]) == (True, 2)

    async def test_keeps_the_key_for_the_rescuer_to_free(self, queue: Queue) -> None:
        await queue.declare("report", concurrency_key="line")
        dead, me = await queue.register(), await queue.register()
        first, second = [await queue.enqueue("report") for _ in range(2)]
        await queue.take(me=dead)
        (job,) = await queue.bury(dead, by=me)
        assert (await queue.claim(me=me)).ids == []
        await queue.settle(verdict(job, "pending", delay=60))
        assert (await queue.claim(me=me)).ids == [second]
        assert (await queue.row(first))["status"] == "pending"

    async def test_goes_on_until_the_dead_holds_nothing(self, queue: Queue) -> None:
        dead, me = await queue.register(), await queue.register()
        await held(queue, dead, 5)
        assert await queue.db.fetchval("select worker.mark_dead($1, $2)", me, dead)
        assert [len(await queue.rescue(me, 2)) for _ in range(4)] == [2, 2, 1, 0]

    async def test_a_row_that_somebody_locks_is_taken_the_next_time(self, queue: Queue, session: Session) -> None:
        dead, me = await queue.register(), await queue.register()
        locked, free = await held(queue, dead, 2)
        other = await session()
        async with other.db.transaction():
            await other.db.execute("select from worker.job_queue where id = $1 for share", locked["id"])
            assert [job["id"] for job in await queue.bury(dead, by=me)] == [free["id"]]
        assert [job["id"] for job in await queue.rescue(me)] == [locked["id"]]

    async def test_a_dead_rescuer_is_refused(self, queue: Queue) -> None:
        dead, me, judge = [await queue.register() for _ in range(3)]
        await held(queue, dead)
        assert await queue.db.fetchval("select worker.mark_dead($1, $2)", judge, dead)
        assert await queue.db.fetchval("select worker.mark_dead($1, $2)", judge, me)
        with refused("WK006"):
            await queue.rescue(me)

    async def test_an_unclaimed_rescue_goes_back_to_pending(self, queue: Queue) -> None:
        dead, me = await queue.register(), await queue.register()
        (job,) = await held(queue, dead)
        assert await queue.db.fetchval("select worker.mark_dead($1, $2)", me, dead)
        await queue.db.fetch("select * from worker.rescue($1, 77, 10)", me)
        assert await queue.db.fetchval("select worker.unclaim($1, 77)", me) == 1
        assert (await queue.row(job["id"]))["status"] == "pending"


@pytest.mark.parametrize("name", ["suspects", "declare_dead", "end_backends", "stop_backend", "register_backend"])
async def test_what_looks_at_sessions_runs_with_the_daemons_own_rights(queue: Queue, name: str) -> None:
    assert await queue.db.fetchval("select not bool_or(prosecdef) from pg_proc where proname = $1", name)
