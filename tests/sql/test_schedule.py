"""Jobs by the clock in SQL: declared, fired once by whoever is first, asked for and paused by operators."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, blocked, refused

Session = Callable[..., Awaitable[Queue]]
HOUR = timedelta(hours=1)
RACERS = 8
CLUBS = """
    create table club (tenant_id uuid, name text);
    create function clubs() returns table (tenant_id uuid, name text) language sql as
      $$ select tenant_id, name from club order by name $$;
"""


async def declare(
    queue: Queue, *schedules: dict[str, Any], types: tuple[str, ...] = ("report",)
) -> list[tuple[str, str]]:
    given = [{"cron": "0 * * * *", "job": "report", "digest": json.dumps(each), **each} for each in schedules]
    rows = await queue.db.fetch("select * from worker.declare_schedules($1::jsonb, $2)", json.dumps(given), list(types))
    return [tuple(row) for row in rows]


async def nightly(queue: Queue, **keys: Any) -> None:
    """A schedule `nightly` of the type `report`, whose next run is at noon; it is noon."""
    await queue.declare("report")
    await queue.clock(NOON)
    await declare(queue, {"name": "nightly", **keys})
    assert await fire(queue, None, [], NOON) == 0


async def fire(
    queue: Queue, expected: datetime | None, runs: list[datetime], then: datetime | None, asked: datetime | None = None
) -> int | None:
    return await queue.db.fetchval("select worker.fire('nightly', $1, $2, $3, $4)", expected, runs, then, asked)


async def schedule(queue: Queue, name: str = "nightly") -> asyncpg.Record:
    found = await queue.db.fetchrow("select * from worker.schedule where name = $1", name)
    assert found is not None
    return found


async def due(queue: Queue, *names: str) -> list[str]:
    rows = await queue.db.fetch("select name from worker.due_schedules($1)", list(names or ("nightly",)))
    return [row["name"] for row in rows]


async def ahead(queue: Queue, *names: str) -> float | None:
    return await queue.db.fetchval("select worker.next_schedule($1)", list(names or ("nightly",)))


async def events(queue: Queue) -> list[tuple[str, dict[str, Any]]]:
    rows = await queue.db.fetch("select event, detail from worker.job_event where job_id is null order by id")
    return [(row["event"], json.loads(row["detail"])) for row in rows]


class TestDeclare:
    async def test_says_what_is_new_and_what_changed(self, queue: Queue) -> None:
        assert await declare(queue, {"name": "a"}, {"name": "b"}) == [("a", "declared"), ("b", "declared")]
        assert await declare(queue, {"name": "a"}, {"name": "b"}) == []
        assert await declare(queue, {"name": "a", "missed": "all"}, {"name": "b"}) == [("a", "changed")]

    async def test_what_is_left_out_has_its_default(self, queue: Queue) -> None:
        await declare(queue, {"name": "a"})
        row = await schedule(queue, "a")
        assert (row["zone"], row["source"], row["missed"], row["max_catch_up"]) == ("UTC", "a", "last", 10)
        assert (row["enabled"], row["paused"], row["priority"], row["next_at"]) == (True, False, None, None)

    async def test_what_is_not_in_the_file_any_more_is_disabled_and_kept(self, queue: Queue) -> None:
        await nightly(queue)
        await fire(queue, NOON, [NOON], NOON + HOUR)
        assert await declare(queue) == [("nightly", "disabled")]
        row = await schedule(queue)
        assert (row["enabled"], row["last_at"], row["next_at"], await ahead(queue)) == (False, NOON, None, None)
        assert await declare(queue) == []
        assert await declare(queue, {"name": "nightly"}) == [("nightly", "changed")]

    async def test_nor_when_its_job_is_gone_too(self, queue: Queue) -> None:
        await nightly(queue)
        assert await declare(queue, types=("other",)) == [("nightly", "disabled")]

    async def test_another_configuration_s_schedules_stay(self, queue: Queue) -> None:
        await nightly(queue)
        await queue.register(["report"])
        assert await declare(queue, {"name": "mine", "job": "other"}, types=("other",)) == [("mine", "declared")]
        assert (await schedule(queue))["enabled"]

    async def test_and_miss_nothing_while_their_daemons_are_down(self, queue: Queue) -> None:
        await nightly(queue)
        await declare(queue, types=("other",))
        await declare(queue, {"name": "nightly"})
        assert (await schedule(queue))["next_at"] == NOON

    async def test_other_times_are_worked_out_anew(self, queue: Queue) -> None:
        await nightly(queue)
        await declare(queue, {"name": "nightly", "payload": {"a": 1}})
        assert (await schedule(queue))["next_at"] == NOON
        await declare(queue, {"name": "nightly", "cron": "5 * * * *"})
        assert (await schedule(queue))["next_at"] is None

    async def test_what_is_off_in_the_file_does_not_fire(self, queue: Queue) -> None:
        await nightly(queue)
        await declare(queue, {"name": "nightly", "enabled": False})
        assert (await due(queue), await fire(queue, None, [], NOON)) == ([], None)

    async def test_a_pause_is_the_operators(self, queue: Queue) -> None:
        await nightly(queue)
        await queue.db.execute("select worker.pause_schedule('nightly')")
        await declare(queue, {"name": "nightly", "cron": "5 * * * *"})
        assert (await schedule(queue))["paused"]

    async def test_a_declaration_forgives(self, queue: Queue) -> None:
        await nightly(queue)
        await queue.db.execute("select worker.schedule_failed('nightly', $1, null, 'E', 60)", NOON)
        assert await due(queue) == []
        await declare(queue, {"name": "nightly", "for_each": "clubs"})
        row = await schedule(queue)
        assert (row["error"], row["failures"], await due(queue)) == (None, 0, ["nightly"])


class TestDue:
    async def test_from_the_very_instant_on(self, queue: Queue) -> None:
        await nightly(queue)
        assert (await due(queue), await ahead(queue)) == (["nightly"], 0.0)
        await queue.clock(NOON - timedelta(milliseconds=1))
        assert (await due(queue), await ahead(queue)) == ([], 0.001)

    async def test_a_new_one_is_to_be_worked_out(self, queue: Queue) -> None:
        await declare(queue, {"name": "a"})
        ahead_by = await ahead(queue, "a")
        assert (await due(queue, "a"), ahead_by is not None and ahead_by < 0) == (["a"], True)

    async def test_only_those_that_are_named(self, queue: Queue) -> None:
        await nightly(queue)
        assert (await due(queue, "other"), await ahead(queue, "other")) == ([], None)

    async def test_a_beat_tells_it(self, queue: Queue) -> None:
        await nightly(queue)
        me = await queue.register(["report"])
        await queue.clock(NOON - HOUR)
        row = await queue.db.fetchrow("select * from worker.beat_and_look($1, 0, '{report}', '{nightly}')", me)
        assert row is not None
        assert (row["alive"], row["next_schedule"]) == (True, 3600.0)

    async def test_a_locked_table_does_not_cost_the_beat(self, queue: Queue, session: Session) -> None:
        await nightly(queue)
        other = await session()
        async with other.db.transaction():
            await other.db.execute("lock table worker.schedule in access exclusive mode")
            assert await ahead(queue) is None


class TestFire:
    async def test_the_jobs_and_the_next_run(self, queue: Queue) -> None:
        await nightly(queue, payload={"a": 1}, priority=7, source="clock")
        await queue.clock(NOON + timedelta(seconds=2))
        assert await fire(queue, NOON, [NOON], NOON + HOUR) == 1
        (job,) = await queue.db.fetch("select * from worker.job_queue")
        assert (job["job_type"], json.loads(job["payload"]), job["priority"]) == ("report", {"a": 1}, 7)
        assert (job["source"], job["scheduled_at"], job["parent_id"]) == ("clock", NOON, None)
        row = await schedule(queue)
        assert (row["next_at"], row["last_at"], row["fired_at"]) == (NOON + HOUR, NOON, NOON + timedelta(seconds=2))
        assert (row["lateness"], row["last_jobs"], row["error"]) == (2.0, 1, None)

    async def test_what_is_left_out_comes_from_the_type(self, queue: Queue) -> None:
        await queue.declare("report", priority=33)
        await declare(queue, {"name": "nightly"})
        await fire(queue, None, [NOON], NOON + HOUR)
        (job,) = await queue.db.fetch("select * from worker.job_queue")
        assert (job["priority"], json.loads(job["payload"]), job["source"]) == (33, {}, "nightly")

    async def test_not_twice(self, queue: Queue) -> None:
        await nightly(queue)
        assert await fire(queue, NOON, [NOON], NOON + HOUR) == 1
        assert await fire(queue, NOON, [NOON], NOON + HOUR) is None
        assert await queue.count() == 1

    async def test_all_runs_that_were_missed(self, queue: Queue) -> None:
        await nightly(queue)
        runs = [NOON + n * HOUR for n in range(14)]
        assert await fire(queue, NOON, runs, NOON + 14 * HOUR) == 14
        rows = await queue.db.fetch("select scheduled_at from worker.job_queue order by id")
        assert [row["scheduled_at"] for row in rows] == runs

    async def test_none_that_was_missed(self, queue: Queue) -> None:
        await nightly(queue)
        assert await fire(queue, NOON, [], NOON + HOUR) == 0
        row = await schedule(queue)
        assert (await queue.count(), row["next_at"], row["last_at"]) == (0, NOON + HOUR, None)

    async def test_a_paused_one_is_not(self, queue: Queue) -> None:
        await nightly(queue)
        await queue.db.execute("select worker.pause_schedule('nightly')")
        assert (await fire(queue, NOON, [NOON], NOON + HOUR), await due(queue)) == (None, [])

    async def test_whoever_comes_second_passes_by(self, queue: Queue, session: Session) -> None:
        await nightly(queue)
        other = await session()
        async with other.db.transaction():
            assert await fire(other, NOON, [NOON], NOON + HOUR) == 1
            assert await fire(queue, NOON, [NOON], NOON + HOUR) is None

    async def test_what_is_not_committed_was_not_fired(self, queue: Queue, session: Session) -> None:
        await nightly(queue)
        other = await session()
        attempt = other.db.transaction()
        await attempt.start()
        assert await fire(other, NOON, [NOON], NOON + HOUR) == 1
        await attempt.rollback()
        assert (await queue.count(), (await schedule(queue))["next_at"]) == (0, NOON)
        assert await fire(queue, NOON, [NOON], NOON + HOUR) == 1

    async def test_eight_racers_fire_each_of_fifty_runs_once(self, queue: Queue, session: Session) -> None:
        await nightly(queue)
        racers = [await session() for _ in range(RACERS)]

        async def race(racer: Queue) -> int:
            won = 0
            for n in range(50):
                run = NOON + n * HOUR
                while (await schedule(racer))["next_at"] == run:
                    won += await fire(racer, run, [run], run + HOUR) or 0
            return won

        async with asyncio.timeout(60):
            won = await asyncio.gather(*map(race, racers))
        rows = await queue.db.fetch("select scheduled_at, count(*) from worker.job_queue group by 1")
        assert (sum(won), {row["count"] for row in rows}, len(rows)) == (50, {1}, 50)


class TestForEach:
    async def nightly(self, queue: Queue, **keys: Any) -> list[str]:
        await queue.db.execute(CLUBS)
        clubs = [str(uuid.UUID(int=n)) for n in (1, 2, 3)]
        await queue.db.execute("insert into club select unnest($1::uuid[]), 'club'", clubs)
        await nightly(queue, for_each="clubs", **keys)
        return clubs

    async def test_a_job_for_each_row(self, queue: Queue) -> None:
        clubs = await self.nightly(queue)
        assert await fire(queue, NOON, [NOON], NOON + HOUR) == 3
        rows = await queue.db.fetch("select tenant_id, payload from worker.job_queue order by id")
        assert [row["tenant_id"] for row in rows] == clubs
        assert json.loads(rows[0]["payload"]) == {"tenant_id": clubs[0], "name": "club"}
        assert (await schedule(queue))["last_jobs"] == 3

    async def test_and_each_run(self, queue: Queue) -> None:
        await self.nightly(queue)
        assert await fire(queue, NOON, [NOON, NOON + HOUR], NOON + 2 * HOUR) == 6

    async def test_no_row_is_no_job(self, queue: Queue) -> None:
        await self.nightly(queue)
        await queue.db.execute("truncate club")
        assert await fire(queue, NOON, [NOON], NOON + HOUR) == 0
        assert (await schedule(queue))["last_at"] == NOON

    async def test_unique_keys_keep(self, queue: Queue) -> None:
        clubs = await self.nightly(queue)
        await queue.declare("report", unique_key="one", on_conflict="refuse")
        held = await queue.enqueue("report", {"tenant_id": clubs[1]}, priority=300)
        assert await fire(queue, NOON, [NOON, NOON + HOUR], NOON + 2 * HOUR) == 2
        assert await queue.count() == 3
        assert (await queue.row(held))["priority"] == 100

    async def test_a_function_of_one_plain_column(self, queue: Queue) -> None:
        await queue.db.execute(
            "create function numbers() returns setof integer language sql as $$ select generate_series(1, 2) $$"
        )
        await nightly(queue, for_each="public.numbers")
        await fire(queue, NOON, [NOON], NOON + HOUR)
        rows = await queue.db.fetch("select payload from worker.job_queue order by id")
        assert [json.loads(row["payload"]) for row in rows] == [{"numbers": 1}, {"numbers": 2}]

    @pytest.mark.parametrize(
        ("for_each", "sqlstate"), [("missing", "42883"), ("fails", "P0001"), ("nowhere.at_all", "3F000")]
    )
    async def test_one_that_fails_leaves_all_as_it_was(self, queue: Queue, for_each: str, sqlstate: str) -> None:
        await queue.db.execute(
            "create function fails() returns setof text language plpgsql as $$ begin raise 'no'; end $$"
        )
        await nightly(queue, for_each=for_each)
        with refused(sqlstate):
            await fire(queue, NOON, [NOON], NOON + HOUR)
        assert (await queue.count(), (await schedule(queue))["next_at"]) == (0, NOON)

    async def test_it_is_called_with_the_rights_of_the_daemon(self, queue: Queue, session: Session) -> None:
        await queue.db.execute(
            "create table seen (who text); grant insert on seen to public;"
            "create function clubs() returns table (who text) language sql as"
            " $$ insert into seen values (current_user); select current_user::text $$"
        )
        await nightly(queue, for_each="clubs")
        runner = await session("runner")
        assert await fire(runner, NOON, [NOON], NOON + HOUR) == 1
        assert await queue.db.fetchval("select who from seen") == await runner.db.fetchval("select current_user")

    async def test_and_no_more_than_those(self, queue: Queue, session: Session) -> None:
        await self.nightly(queue)
        runner = await session("runner")
        with refused("42501", "permission denied for table club"):
            await fire(runner, NOON, [NOON], NOON + HOUR)

    async def test_a_name_is_a_name_whatever_it_holds(self, queue: Queue) -> None:
        await nightly(queue)
        await queue.db.execute("update worker.schedule set for_each = $1", '"clubs() r; drop table worker.schedule"')
        with refused("42883"):
            await fire(queue, NOON, [NOON], NOON + HOUR)

    async def test_whoever_pauses_or_declares_does_not_wait_for_it(self, queue: Queue, session: Session) -> None:
        await queue.db.execute(
            "create function clubs() returns setof integer language plpgsql as"
            " $$ begin perform pg_advisory_lock_shared(77); return query select 1; end $$; select pg_advisory_lock(77)"
        )
        await nightly(queue, for_each="clubs")
        other = await session()
        async with blocked(queue, other, fire(other, NOON, [NOON], NOON + HOUR)) as firing:
            assert await fire(queue, NOON, [NOON], NOON + HOUR) is None
            assert await declare(queue, {"name": "nightly", "for_each": "clubs", "priority": 3}) == [
                ("nightly", "changed")
            ]
            assert await queue.db.fetchval("select worker.pause_schedule('nightly')")
            await queue.db.execute("select pg_advisory_unlock(77)")
        assert (await firing, await queue.count()) == (None, 0)


class TestFailed:
    async def test_is_noted_and_tried_again_later(self, queue: Queue) -> None:
        await nightly(queue)
        await queue.db.execute("select worker.schedule_failed('nightly', $1, null, 'E', 5)", NOON)
        row = await schedule(queue)
        assert (row["error"], row["failures"], row["next_at"]) == ("E", 1, NOON)
        assert (await due(queue), await ahead(queue)) == ([], 5.0)
        await queue.clock(NOON + timedelta(seconds=5))
        assert await due(queue) == ["nightly"]
        await fire(queue, NOON, [NOON], NOON + HOUR)
        row = await schedule(queue)
        assert (row["error"], row["failures"], row["retry_at"]) == (None, 0, None)

    async def test_not_when_somebody_else_did_it(self, queue: Queue) -> None:
        await nightly(queue)
        await fire(queue, NOON, [NOON], NOON + HOUR)
        assert not await queue.db.fetchval("select worker.schedule_failed('nightly', $1, null, 'E', 5)", NOON)
        assert (await schedule(queue))["error"] is None


class TestOperators:
    async def test_run_adds_jobs_and_moves_nothing(self, queue: Queue, session: Session) -> None:
        await nightly(queue, payload={"a": 1})
        await queue.clock(NOON - HOUR)
        operator = await session("operator")
        assert await operator.db.fetchval("select worker.run_schedule('nightly')") == 1
        row = await schedule(queue)
        assert (row["next_at"], row["last_at"], row["last_jobs"]) == (NOON, NOON - HOUR, 1)
        assert await events(queue) == [("run", {"schedule": "nightly", "jobs": 1})]
        who = await operator.db.fetchval("select current_user")
        assert await queue.db.fetchval("select actor from worker.job_event") == who

    async def test_rows_are_read_by_a_daemon(self, queue: Queue, session: Session) -> None:
        await TestForEach().nightly(queue)
        await queue.clock(NOON - HOUR)
        operator = await session("operator")
        assert await operator.db.fetchval("select worker.run_schedule('nightly')") is None
        assert (await due(queue), await ahead(queue)) == (["nightly"], 0.0)
        asked = NOON - HOUR
        assert await fire(queue, NOON, [asked], NOON, asked) == 3
        assert await fire(queue, NOON, [asked], NOON, asked) is None
        assert ((await schedule(queue))["next_at"], await due(queue)) == (NOON, [])

    async def test_a_paused_one_can_be_run(self, queue: Queue) -> None:
        await TestForEach().nightly(queue)
        await queue.db.execute("select worker.pause_schedule('nightly'), worker.run_schedule('nightly')")
        assert await due(queue) == ["nightly"]
        assert await fire(queue, NOON, [NOON], NOON, NOON) == 3
        assert await due(queue) == []

    async def test_a_run_that_fails_is_given_up(self, queue: Queue) -> None:
        await TestForEach().nightly(queue)
        await queue.clock(NOON - HOUR)
        await queue.db.execute("select worker.run_schedule('nightly')")
        await queue.db.execute("select worker.schedule_failed('nightly', $1, $2, 'E', 9)", NOON, NOON - HOUR)
        row = await schedule(queue)
        assert (row["error"], row["asked_at"], row["retry_at"], row["failures"]) == ("E", None, None, 0)

    async def test_pause_and_resume(self, queue: Queue, session: Session) -> None:
        await nightly(queue)
        operator = await session("operator")
        answers = [await operator.db.fetchval(f"select worker.{verb}_schedule('nightly')")
                   for verb in ("pause", "pause", "resume", "resume")]  # fmt: skip
        assert answers == [True, False, True, False]
        assert [event for event, _ in await events(queue)] == ["pause", "resume"]

    async def test_what_a_pause_left_out_is_not_made_up_for(self, queue: Queue) -> None:
        await nightly(queue, missed="all")
        await queue.db.execute("select worker.pause_schedule('nightly'), worker.resume_schedule('nightly')")
        assert (await schedule(queue))["next_at"] is None

    @pytest.mark.parametrize("verb", ["run", "pause", "resume"])
    async def test_what_nobody_declared(self, queue: Queue, verb: str) -> None:
        with refused("WK022", 'nobody declared the schedule "gone"'):
            await queue.db.execute(f"select worker.{verb}_schedule('gone')")

    async def test_what_is_off_is_not_run(self, queue: Queue) -> None:
        await nightly(queue)
        await declare(queue)
        with refused("WK023", "the schedule nightly is off"):
            await queue.db.execute("select worker.run_schedule('nightly')")

    async def test_an_operator_s_run_and_a_daemon_s_wait_for_each_other(self, queue: Queue, session: Session) -> None:
        await nightly(queue)
        other = await session()
        attempt = other.db.transaction()
        await attempt.start()
        await fire(other, NOON, [NOON], NOON + HOUR)
        watcher = await session()
        async with blocked(watcher, queue, queue.db.fetchval("select worker.run_schedule('nightly')")) as running:
            await attempt.commit()
        assert (await running, await queue.count()) == (1, 2)


CALLS = {
    "declare_schedules('[]', '{}')": {"runner"},
    "due_schedules('{}')": {"runner"},
    "fire('nightly', now(), '{}', now())": {"runner"},
    "fire_for('nightly', now(), '{}', now(), null, '{}')": {"runner"},
    "schedule_failed('nightly', now(), null, 'E', 1)": {"runner"},
    "run_schedule('nightly')": {"operator"},
    "pause_schedule('nightly')": {"operator"},
    "resume_schedule('nightly')": {"operator"},
}
ROLES = ("app", "tenant", "operator", "reader", "runner")


@pytest.mark.parametrize("call", CALLS)
async def test_who_may(queue: Queue, session: Session, call: str) -> None:
    await nightly(queue)
    may = set()
    for role in ROLES:
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            await (await session(role)).db.execute(f"select worker.{call}")
            may.add(role)
    assert may == CALLS[call]


async def test_who_sees_the_schedules(queue: Queue, session: Session) -> None:
    await nightly(queue)
    seen = {}
    for role in ROLES:
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            rows = await (await session(role)).db.fetch("select name, state from worker.schedules")
            seen[role] = [tuple(row) for row in rows]
    assert seen == {role: [("nightly", "on")] for role in ("operator", "reader", "runner")}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("paused = true", "paused"),
        ("enabled = false, paused = true", "off"),
        ("error = 'E'", "failing"),
        ("paused = false", "on"),
    ],
)
async def test_states(queue: Queue, change: str, state: str) -> None:
    await nightly(queue)
    await queue.db.execute(f"update worker.schedule set {change}")
    assert await queue.db.fetchval("select state from worker.schedules") == state


async def test_times_are_the_clock_s(queue: Queue) -> None:
    await nightly(queue)
    await queue.clock(datetime(2031, 1, 1, tzinfo=UTC))
    assert await queue.db.fetchval("select at from worker.due_schedules('{nightly}')") == datetime(
        2031, 1, 1, tzinfo=UTC
    )
