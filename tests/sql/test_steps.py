"""Steps: a function's effect and its mark are one transaction, under a claim that is current to the end."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import PATIENCE, Queue, blocked, refused, until_blocked, verdict

Session = Callable[..., Awaitable[Queue]]

FUNCTIONS = """
create table public.effect (id bigint generated always as identity, what text);
create function public.write(what text default 'x') returns integer language plpgsql as $$
  begin insert into public.effect (what) values (write.what); return 7; end $$;
create function public.fail(what text default 'x') returns void language plpgsql as $$
  begin insert into public.effect (what) values (fail.what); raise exception 'no luck' using errcode = 'P0042'; end $$;
create function public.gate(what text default 'x') returns void language plpgsql as $$
  begin
    insert into public.effect (what) values (gate.what);
    perform pg_advisory_xact_lock(4711);
  end $$;
create function public.rows() returns table (a integer, b text) language sql as $$
  select n, 'b' || n from generate_series(1, 1500) n $$;
create function public.nothing() returns void language sql as $$
  insert into public.effect (what) values ('nothing') $$;
create function public.document() returns jsonb language sql as $$ select '{"a": [1]}'::jsonb $$;
create function public.long() returns text language sql as $$ select repeat('x', 20000) $$;
create function public.becomes(who text) returns void language plpgsql as $$
  begin insert into public.effect (what) values ('role'); execute format('set local role %I', who); end $$;
create function public.unsets() returns void language plpgsql as $$
  begin
    insert into public.effect (what) values ('path');
    set local search_path = pg_temp; set local lock_timeout = '1ms'; set local statement_timeout = 0;
  end $$;
grant insert, select on public.effect to public;
"""


@pytest.fixture
async def steps(queue: Queue) -> Queue:
    """A database with some functions to run, and a declared type."""
    await queue.db.execute(FUNCTIONS)
    await queue.declare("graph", concurrency_key="line:{n}")
    return queue


async def claimed(queue: Queue, n: int = 1) -> asyncpg.Record:
    await queue.enqueue("graph", {"n": n})
    (job,) = await queue.take()
    return job


async def run_step(queue: Queue, job: asyncpg.Record, function: str = "write", **named: Any) -> asyncpg.Record:
    """worker.run_step of a function with its call made by worker.step_call."""
    arguments = named.get("arguments", {})
    call, fault = await queue.db.fetchrow("select * from worker.step_call($1, $2)", function, list(arguments))
    assert fault is None, fault
    return await queue.db.fetchrow(
        "select * from worker.run_step($1, $2, $3, $4, $5, $6, $7, $8)",
        job["id"], named.get("claim", job["claim"]), named.get("step", "a"), function, call, json.dumps(arguments),
        named.get("key"), named.get("tags"),
    )  # fmt: skip


async def effects(queue: Queue) -> list[str]:
    return [what for (what,) in await queue.db.fetch("select what from public.effect order by id")]


async def marks(queue: Queue) -> list[tuple[str, str, int]]:
    rows = await queue.db.fetch("select name, status, claim from worker.job_step order by job_id, name")
    return [tuple(row) for row in rows]


class TestMark:
    async def test_stands_where_the_effect_stands(self, steps: Queue) -> None:
        job = await claimed(steps)
        assert tuple(await run_step(steps, job, tags=["t1", "t2"])) == (True, "7")
        assert await effects(steps) == ["x"]
        (row,) = await steps.db.fetch("select * from worker.job_step")
        assert (row["name"], row["status"], row["claim"], row["attempt"]) == ("a", "completed", job["claim"], 1)
        assert (row["tags"], row["announced"], row["result"], row["error"]) == (["t1", "t2"], False, "7", None)
        assert row["started_at"] < row["finished_at"]

    async def test_neither_stands_when_the_function_raises(self, steps: Queue) -> None:
        job = await claimed(steps)
        with refused("P0042", "no luck"):
            await run_step(steps, job, "fail")
        assert (await effects(steps), await marks(steps)) == ([], [])

    async def test_neither_stands_when_a_deferred_constraint_fails_at_commit(self, steps: Queue) -> None:
        await steps.db.execute("alter table public.effect add unique (what) deferrable initially deferred")
        await steps.db.execute("insert into public.effect (what) values ('x')")
        job = await claimed(steps)
        with refused("23505"):
            await run_step(steps, job)
        assert (await effects(steps), await marks(steps)) == (["x"], [])

    async def test_a_step_that_is_done_is_not_run_again(self, steps: Queue) -> None:
        job = await claimed(steps)
        await run_step(steps, job)
        assert tuple(await run_step(steps, job)) == (False, None)
        await steps.settle(verdict(job, "pending", error="E"))
        (again,) = await steps.take()
        assert tuple(await run_step(steps, again)) == (False, None)
        assert await effects(steps) == ["x"]

    async def test_other_steps_and_other_jobs_have_marks_of_their_own(self, steps: Queue) -> None:
        one, two = await claimed(steps, 1), await claimed(steps, 2)
        for job, step in ((one, "a"), (one, "b"), (two, "a")):
            assert (await run_step(steps, job, step=step))["ran"] is True
        assert len(await effects(steps)) == len(await marks(steps)) == 3

    async def test_a_failed_step_is_run_again_and_its_error_forgotten(self, steps: Queue) -> None:
        job = await claimed(steps)
        await steps.db.fetch("select worker.begin_steps($1, $2, '{a}')", job["id"], job["claim"])
        assert await steps.db.fetchval("select worker.step_failed($1, $2, 'a', 'no luck')", job["id"], job["claim"])
        assert await marks(steps) == [("a", "failed", job["claim"])]
        assert (await run_step(steps, job))["ran"] is True
        assert await steps.db.fetchrow("select status, error from worker.job_step") == ("completed", None)


class TestClaim:
    async def test_a_stale_one_runs_nothing(self, steps: Queue) -> None:
        job = await claimed(steps)
        with refused("WK001", str(job["claim"] + 1)):
            await run_step(steps, job, claim=job["claim"] + 1)
        await steps.settle(verdict(job, "pending"))
        with refused("WK001"):
            await run_step(steps, job)
        await steps.take()
        with refused("WK001"):
            await run_step(steps, job)
        with refused("WK001"):
            await run_step(steps, {"id": 999, "claim": 1})
        assert (await effects(steps), await marks(steps)) == ([], [])

    async def test_a_cancel_asked_before_the_step_stops_it(self, steps: Queue) -> None:
        job = await claimed(steps)
        await steps.db.execute("select worker.cancel($1)", job["id"])
        with refused("WK009"):
            await run_step(steps, job)
        assert await effects(steps) == []

    async def test_a_done_step_of_a_stale_claim_says_stale_not_done(self, steps: Queue) -> None:
        job = await claimed(steps)
        await run_step(steps, job)
        await steps.settle(verdict(job, "pending"))
        await steps.take()
        with refused("WK001"):
            await run_step(steps, job)


class TestWhileItRuns:
    """The function has written its effect and stands at a gate; meanwhile something happens to its job."""

    @pytest.mark.parametrize(("happens", "sqlstate"), [("rescue", "WK001"), ("cancel", "WK009"), ("settle", "WK001")])
    async def test_what_commits_before_its_end_takes_the_effect_away(
        self, steps: Queue, session: Session, happens: str, sqlstate: str
    ) -> None:
        job = await claimed(steps)
        runner, gate = await session(), await session()
        await gate.db.execute("select pg_advisory_lock(4711)")
        async with blocked(steps, runner, run_step(runner, job, "gate")) as step:
            if happens == "rescue":
                await steps.bury(steps.me, by=await steps.register())
            elif happens == "cancel":
                await steps.db.execute("select worker.cancel($1)", job["id"])
            else:
                await steps.settle(verdict(job, "pending"))
            await gate.db.execute("select pg_advisory_unlock(4711)")
            with refused(sqlstate):
                await step
        assert (await effects(steps), await marks(steps)) == ([], [])

    @pytest.mark.parametrize(("happens", "sqlstate"), [("rescue", "WK001"), ("cancel", "WK009")])
    async def test_what_is_about_to_commit_at_its_end_is_waited_for(
        self, steps: Queue, session: Session, happens: str, sqlstate: str
    ) -> None:
        job = await claimed(steps)
        runner, other = await session(), await session()
        rescuer = await steps.register()
        change = other.db.transaction()
        await change.start()
        if happens == "rescue":
            assert len(await other.bury(steps.me, by=rescuer)) == 1
        else:
            await other.db.execute("select worker.cancel($1)", job["id"])
        async with blocked(steps, runner, run_step(runner, job)) as step:
            await change.commit()
            with refused(sqlstate):
                await step
        assert (await effects(steps), await marks(steps)) == ([], [])

    async def test_a_rescue_after_the_last_look_passes_by_until_the_mark_is_there(
        self, steps: Queue, session: Session
    ) -> None:
        job = await claimed(steps)
        runner = await session()
        change = runner.db.transaction()
        await change.start()
        await run_step(runner, job)
        rescuer = await steps.register()
        assert await steps.bury(steps.me, by=rescuer) == []
        await change.commit()
        (taken,) = await steps.rescue(rescuer)
        assert (taken["id"], taken["counted"]) == (job["id"], False)
        assert tuple(await run_step(steps, taken)) == (False, None)
        assert await effects(steps) == ["x"]

    async def test_a_settle_waits_for_the_mark_of_a_step_that_ends(self, steps: Queue, session: Session) -> None:
        job = await claimed(steps)
        runner, observer = await session(), await session()
        change = runner.db.transaction()
        await change.start()
        await run_step(runner, job)
        async with blocked(observer, steps, steps.settle(verdict(job))) as settled:
            await change.commit()
            assert await settled == {job["id"]: "completed"}
        assert len(await marks(steps)) == 1


class TestOrphans:
    async def test_a_step_repeated_while_its_orphan_still_runs_takes_effect_once(
        self, steps: Queue, session: Session
    ) -> None:
        job = await claimed(steps)
        orphan, again, gate = await session(), await session(), await session()
        await gate.db.execute("select pg_advisory_lock(4711)")
        async with (
            blocked(steps, orphan, run_step(orphan, job, "gate")) as first,
            blocked(steps, again, run_step(again, job, "gate")) as second,
        ):
            await gate.db.execute("select pg_advisory_unlock(4711)")
            assert [(await first)["ran"], (await second)["ran"]] == [True, False]
        assert (await effects(steps), len(await marks(steps))) == (["x"], 1)

    async def test_of_a_rescued_job_waits_for_the_orphan_of_the_dead_too(self, steps: Queue, session: Session) -> None:
        job = await claimed(steps)
        orphan, again, gate = await session(), await session(), await session()
        await gate.db.execute("select pg_advisory_lock(4711)")
        async with blocked(steps, orphan, run_step(orphan, job, "gate")) as first:
            (rescued,) = await steps.bury(steps.me, by=await steps.register())
            async with blocked(steps, again, run_step(again, rescued, "gate")) as second:
                await gate.db.execute("select pg_advisory_unlock(4711)")
                with refused("WK001"):
                    await first
                assert (await second)["ran"] is True
        assert await effects(steps) == ["x"]

    async def test_a_lock_not_had_in_time_is_an_error_of_its_own(self, steps: Queue, session: Session) -> None:
        job = await claimed(steps)
        holder = await session()
        await steps.db.execute("alter function worker.step_open set lock_timeout = '10ms'")
        change = holder.db.transaction()
        await change.start()
        await run_step(holder, job)
        with refused("WK010", "still runs elsewhere"):
            await run_step(steps, job)
        await change.rollback()
        assert (await run_step(steps, job))["ran"] is True
        assert await steps.db.fetchval("show lock_timeout") == "0"

    @pytest.mark.parametrize(
        ("second_step", "key", "waits"), [("b", None, True), ("b", "k", True), ("b", "other", False)]
    )
    async def test_one_function_runs_once_at_a_time_for_one_key(
        self, steps: Queue, session: Session, second_step: str, key: str | None, waits: bool
    ) -> None:
        job = await claimed(steps)
        holder = await session()
        change = holder.db.transaction()
        await change.start()
        await run_step(holder, job, key=None if key is None else "k")
        await steps.db.execute("alter function worker.step_open set lock_timeout = '10ms'")
        if waits:
            with refused("WK010"):
                await run_step(steps, job, step=second_step, key=key)
        else:
            assert (await run_step(steps, job, step=second_step, key=key))["ran"] is True
        await change.rollback()

    async def test_the_lock_of_a_key_that_was_used_before_is_a_lock_too(self, steps: Queue, session: Session) -> None:
        job = await claimed(steps)
        await run_step(steps, job, step="before", key="k")
        holder = await session()
        change = holder.db.transaction()
        await change.start()
        await run_step(holder, job, step="a", key="k")
        async with blocked(holder, steps, run_step(steps, job, step="b", key="k")) as second:
            await change.commit()
            assert (await second)["ran"] is True

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_of_two_that_wait_for_a_lock_one_gets_it(
        self, steps: Queue, session: Session, key: str | None
    ) -> None:
        job = await claimed(steps)
        sessions = [await session() for _ in range(3)]
        changes = [each.db.transaction() for each in sessions]
        for change in changes:
            await change.start()
        holder, *waiting = sessions
        await run_step(holder, job, step="a", key=key)
        tasks = [
            asyncio.ensure_future(run_step(each, job, step=step, key=key))
            for each, step in zip(waiting, "bc", strict=True)
        ]
        await until_blocked(steps, *waiting)
        await changes[0].commit()
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
        assert len(done) == 1
        first = tasks.index(done.pop())
        await until_blocked(steps, waiting[1 - first])
        await changes[1 + first].commit()
        assert (await tasks[1 - first])["ran"] is True
        await changes[2 - first].commit()
        assert [mark[0] for mark in await marks(steps)] == ["a", "b", "c"]

    async def test_a_lock_of_one_job_alone_leaves_nothing_behind(self, steps: Queue) -> None:
        job = await claimed(steps)
        for _ in range(2):
            await run_step(steps, job)
        assert await steps.count("worker.step_lock") == 0

    async def test_another_function_of_the_same_job_runs_beside_it(self, steps: Queue, session: Session) -> None:
        job = await claimed(steps)
        other = await session()
        change = other.db.transaction()
        await change.start()
        await run_step(other, job, "write", step="a")
        assert (await run_step(steps, job, "nothing", step="b"))["ran"] is True
        await change.commit()
        assert [mark[:2] for mark in await marks(steps)] == [("a", "completed"), ("b", "completed")]


class TestFunctions:
    @pytest.mark.parametrize(
        ("function", "result"),
        [("nothing", None), ("document", {"a": [1]}), ("write", 7)],
    )
    async def test_answer_with_what_they_return_as_json(self, steps: Queue, function: str, result: object) -> None:
        job = await claimed(steps)
        answer = (await run_step(steps, job, function))["result"]
        assert (answer if answer is None else json.loads(answer)) == result
        kept = await steps.db.fetchval("select result from worker.job_step")
        assert (kept if kept is None else json.loads(kept)) == result

    async def test_that_return_rows_answer_with_at_most_a_thousand(self, steps: Queue) -> None:
        job = await claimed(steps)
        answer = (await run_step(steps, job, "rows"))["result"]
        assert len(answer) == 10_000
        rows = json.loads(await steps.db.fetchval("select result from worker.job_step"))
        assert (len(rows), rows[0]) == (1000, {"a": 1, "b": "b1"})

    async def test_a_long_answer_is_cut_on_the_way_to_the_daemon(self, steps: Queue) -> None:
        job = await claimed(steps)
        assert len((await run_step(steps, job, "long"))["result"]) == 10_000

    async def test_one_that_changes_the_role_loses_its_effect(self, steps: Queue, roles: dict[str, str]) -> None:
        job = await claimed(steps)
        with refused("42501"):
            await run_step(steps, job, "becomes", arguments={"who": roles["nobody"]})
        assert (await effects(steps), await marks(steps)) == ([], [])

    async def test_one_that_changes_settings_changes_nothing_for_the_mark(self, steps: Queue) -> None:
        job = await claimed(steps)
        assert (await run_step(steps, job, "unsets"))["ran"] is True
        assert [mark[:2] for mark in await marks(steps)] == [("a", "completed")]

    async def test_run_with_the_rights_of_the_daemon(self, steps: Queue, session: Session) -> None:
        job = await claimed(steps)
        runner = await session("runner")
        await steps.db.execute("revoke insert on public.effect from public")
        with refused("42501", "effect"):
            await run_step(runner, job)
        await steps.db.execute("grant insert on public.effect to public")
        assert (await run_step(runner, job))["ran"] is True


class TestCall:
    """worker.step_call makes the text of a call once at start, or says why it cannot be called."""

    @pytest.fixture(autouse=True)
    async def functions(self, queue: Queue) -> None:
        await queue.db.execute("""
            create schema deep;
            create function deep.plain(a integer, b text default 'z') returns text language sql as $$ select a || b $$;
            create function public.plain(a int, b text default 'z') returns text language sql as $$ select a || b $$;
            create function public.twice(a integer) returns integer language sql as $$ select 1 $$;
            create function public.twice(a text) returns integer language sql as $$ select 1 $$;
            create procedure public.act() language sql as $$ select 1 $$;
            create function public.outs(out x integer, a integer, out y integer) language sql as $$ select a, a $$;
            create function public.many(variadic a integer[]) returns integer language sql as $$ select 1 $$;
            create function public."Odd Name"("An Arg" date) returns text language sql as $$ select "An Arg"::text $$;
            create function public.secret() returns integer language sql as $$ select 1 $$;
            revoke execute on function public.secret() from public;
        """)

    @pytest.mark.parametrize(
        ("function", "arguments", "result"),
        [
            ("plain", {"a": 1, "b": "y"}, "1y"),
            ("plain", {"a": "12"}, "12z"),
            ("deep.plain", {"b": None, "a": 1}, None),
            ("outs", {"a": 5}, {"x": 5, "y": 5}),
            ("Odd Name", {"An Arg": "2026-11-21"}, "2026-11-21"),
        ],
    )
    async def test_calls_by_name_with_what_the_payload_has(
        self, queue: Queue, function: str, arguments: dict[str, object], result: object
    ) -> None:
        call, fault = await queue.db.fetchrow("select * from worker.step_call($1, $2)", function, list(arguments))
        assert fault is None
        answer = await queue.db.fetchval(call.replace("$1", "$1::jsonb"), json.dumps(arguments))
        assert (answer if answer is None else json.loads(answer)) == result

    @pytest.mark.parametrize(
        ("kind", "given", "taken"),
        [
            ("int[]", "[1, 2]", "{1,2}"),
            ("int[]", "[3, null, 1, 1]", "{3,NULL,1,1}"),
            ("int[]", "[]", "{}"),
            ("int[]", "null", None),
            ("int[]", '"{4,5}"', "{4,5}"),
            ("int[]", "[[1, 2], [3, null]]", "{{1,2},{3,NULL}}"),
            ("numeric[]", "[12345678901234567890123, 0.10]", "{12345678901234567890123,0.10}"),
            ("text[]", '["a,b", "NULL", "", 1.50, true, null]', '{"a,b","NULL","",1.50,true,NULL}'),
            ("date[]", '["2026-11-21"]', "{2026-11-21}"),
            ("bpchar[]", '["abc"]', "{abc}"),
            ("mood[]", '["sad"]', "{sad}"),
            ("ids", "[1, 2]", "{1,2}"),
            ("ids", "null", None),
            ("jsonb[]", '[{"a": 1}, "x", [2], null]', r'{"{\"a\": 1}","\"x\"",[2],NULL}'),
            ("pair[]", '[{"n": 1, "tags": ["x"]}, null, {"tags": []}]', '{"(1,{x})",NULL,"(,{})"}'),
            ("pair", '{"n": 12345678901234567890123, "tags": ["x", null]}', '(12345678901234567890123,"{x,NULL}")'),
            ("pair", '"(1,{})"', "(1,{})"),
            ("jsonb", '"text"', '"text"'),
            ("jsonb", '{"a": [null]}', '{"a": [null]}'),
            ("jsonb", "null", None),
            ("json", '"text"', '"text"'),
            ("character", '"abc"', "abc"),
            ("bit varying", '"101"', "101"),
            ("text", '["a"]', '["a"]'),
            ("boolean", "true", "true"),
        ],
    )
    async def test_a_value_of_the_payload_arrives_as_the_arguments_type_wants_it(
        self, queue: Queue, kind: str, given: str, taken: str | None
    ) -> None:
        await queue.db.execute(f"""
            create domain public.ids as integer[]; create type public.mood as enum ('sad', 'glad');
            create type public.pair as (n numeric, tags text[]);
            create function public.shows(a {kind}, b text) returns text language sql as $$ select a::text $$;
        """)
        call, fault = await queue.db.fetchrow("select * from worker.step_call('shows', '{b,a}')")
        assert fault is None
        answer = await queue.db.fetchval(call.replace("$1", "$1::jsonb"), f'{{"a": {given}, "b": "x"}}')
        assert (answer if answer is None else json.loads(answer)) == taken

    @pytest.mark.parametrize("given", ["[[1], [2, 3]]", "7", '[{"a": 1}]', '["x"]'])
    async def test_what_is_no_array_of_the_type_is_refused(self, queue: Queue, given: str) -> None:
        await queue.db.execute(
            "create function public.sums(a int[]) returns int language sql as $$ select cardinality(a) $$"
        )
        call = await queue.db.fetchval("select call from worker.step_call('sums', '{a}')")
        with refused("22P02"):
            await queue.db.fetchval(call.replace("$1", "$1::jsonb"), f'{{"a": {given}}}')

    async def test_the_daemon_may_make_a_call_with_arrays(self, queue: Queue, session: Session) -> None:
        await queue.db.execute("create function public.sums(a int[]) returns int language sql as $$ select 1 $$")
        runner = await session("runner")
        _, fault = await runner.db.fetchrow("select * from worker.step_call('sums', '{a}')")
        assert fault is None

    @pytest.mark.parametrize(
        ("function", "arguments", "says"),
        [
            ("missing", [], "function missing does not exist on search_path"),
            ("deep.missing", [], "does not exist"),
            ("PLAIN", ["a"], "does not exist"),
            ("twice", ["a"], "function twice is not unique: 2 of that name"),
            ("act", [], "act is not a plain function"),
            ("count", ["a"], "count is not"),
            ("plain", [], "function plain takes 2 arguments (a integer, b text), arguments gives 0"),
            ("plain", ["a", "b", "c"], "takes 2 arguments"),
            ("plain", ["a", "c"], "has no argument c"),
            ("plain", ["b"], "argument a"),
            ("outs", ["x"], "argument"),
            ("many", ["a"], "variadic"),
        ],
    )
    async def test_or_the_fault_that_forbids_it(
        self, queue: Queue, function: str, arguments: list[str], says: str
    ) -> None:
        call, fault = await queue.db.fetchrow("select * from worker.step_call($1, $2)", function, arguments)
        assert call is None
        assert says in (fault or ""), fault

    async def test_a_function_that_the_daemon_may_not_execute_is_a_fault(self, session: Session) -> None:
        runner = await session("runner")
        _, fault = await runner.db.fetchrow("select * from worker.step_call('secret', '{}')")
        assert fault == "no right to execute secret"

    async def test_names_and_values_are_never_read_as_sql(self, queue: Queue) -> None:
        bad = 'x"); drop table worker.job_queue; --'
        _, fault = await queue.db.fetchrow("select * from worker.step_call($1, '{}')", bad)
        assert "does not exist" in fault
        _, fault = await queue.db.fetchrow("select * from worker.step_call('plain', $1)", ["a", bad])
        assert "has no argument" in fault


class TestTimeline:
    async def test_begin_steps_opens_it_and_says_what_is_done(self, steps: Queue) -> None:
        job = await claimed(steps)
        await run_step(steps, job, step="b")
        rows = await steps.db.fetch("select * from worker.begin_steps($1, $2, '{a,b,c}')", job["id"], job["claim"])
        assert {row["name"]: row["done"] for row in rows} == {"a": False, "b": True, "c": False}
        assert [mark[:2] for mark in await marks(steps)] == [("a", "waiting"), ("b", "completed"), ("c", "waiting")]

    async def test_begin_steps_tells_the_median_of_earlier_jobs(self, steps: Queue) -> None:
        for seconds in (1, 2, 30):
            job = await claimed(steps)
            await run_step(steps, job)
            await steps.db.execute(
                "update worker.job_step set finished_at = started_at + $2::interval where job_id = $1",
                job["id"],
                timedelta(seconds=seconds),
            )
            await steps.settle(verdict(job))
        job = await claimed(steps)
        rows = await steps.db.fetch("select * from worker.begin_steps($1, $2, '{a,b}')", job["id"], job["claim"])
        assert {row["name"]: row["seconds"] for row in rows} == {"a": 2.0, "b": None}

    @pytest.mark.parametrize("call", ["begin_steps($1, $2, '{a}')"])
    async def test_a_stale_claim_or_a_cancel_opens_nothing(self, steps: Queue, call: str) -> None:
        job = await claimed(steps)
        with refused("WK001"):
            await steps.db.fetch(f"select worker.{call}", job["id"], job["claim"] + 1)
        await steps.db.execute("select worker.cancel($1)", job["id"])
        with refused("WK009"):
            await steps.db.fetch(f"select worker.{call}", job["id"], job["claim"])
        assert await marks(steps) == []

    async def test_began_failed_and_progress_are_fenced(self, steps: Queue) -> None:
        job = await claimed(steps)
        await steps.db.fetch("select worker.begin_steps($1, $2, '{a}')", job["id"], job["claim"])
        calls = ("step_began($1, $2, 'a')", "step_failed($1, $2, 'a', 'E')", "progress($1, $2, 'half', '{\"n\": 1}')")
        before = await steps.row(job["id"])
        for call in calls:
            assert await steps.db.fetchval(f"select worker.{call}", job["id"], job["claim"] + 1) is False
        assert (await marks(steps), await steps.row(job["id"])) == ([("a", "waiting", job["claim"])], before)
        for call, status in zip(calls, ("running", "failed", "failed"), strict=True):
            assert await steps.db.fetchval(f"select worker.{call}", job["id"], job["claim"]) is True
            assert (await marks(steps))[0][1] == status
        row = await steps.row(job["id"])
        assert (row["phase"], row["progress"]) == ("half", '{"n": 1}')

    async def test_a_failure_reported_late_does_not_unmark_a_done_step(self, steps: Queue) -> None:
        job = await claimed(steps)
        await run_step(steps, job)
        assert await steps.db.fetchval("select worker.step_failed($1, $2, 'a', 'E')", job["id"], job["claim"]) is False
        assert (await marks(steps))[0][1] == "completed"


RESCUE_ONE = """
create function public.rescue_one(job bigint) returns boolean language plpgsql as $$
  declare marked boolean;
  begin
    perform from worker.job_queue where id = job for no key update skip locked;
    if not found then return null; end if;
    marked := exists (select from worker.job_step where job_id = job);
    update worker.job_queue set claim = nextval('worker.claim_seq') where id = job;
    return marked;
  end $$
"""


async def test_thousands_of_rescues_against_the_end_of_a_step_accept_no_stale_mark(
    steps: Queue, session: Session
) -> None:
    races, most_seconds = 4000, 12.0
    runner, other = await session(), await session()
    await steps.db.execute(RESCUE_ONE)
    await steps.declare("race")
    # Numbers and texts only, so that both go out in one message each.
    step = await runner.db.prepare("""
        select worker.run_step($1, $2, 'a', 'write', 'select to_jsonb(public.write(what => ''x''))', '{}',
          'line ' || $1::bigint, null)
    """)
    rescue = await other.db.prepare("select public.rescue_one($1)")
    draw = random.Random(7)
    met: dict[str, list[int]] = {"no mark": [], "mark": [], "passed by": []}
    lost = set()
    end = time.monotonic() + most_seconds

    async def race(job: asyncpg.Record) -> None:
        calls = [lambda: step.fetchval(job["id"], job["claim"]), lambda: rescue.fetchval(job["id"])]
        tasks: dict[int, asyncio.Future[Any]] = {}
        for index in draw.sample([0, 1], 2):
            tasks[index] = asyncio.ensure_future(calls[index]())
            for _ in range(draw.randrange(4)):
                await asyncio.sleep(0)
        ran, marked = await asyncio.gather(tasks[0], tasks[1], return_exceptions=True)
        if isinstance(ran, BaseException):
            assert getattr(ran, "sqlstate", None) == "WK001", ran
            lost.add(job["id"])
        assert not isinstance(marked, BaseException), marked
        met["passed by" if marked is None else "mark" if marked else "no mark"].append(job["id"])

    done = 0
    while done < races and time.monotonic() < end:
        await steps.db.execute("insert into worker.job_queue (job_type) select 'race' from generate_series(1, 250)")
        for job in await steps.take(250):
            await race(job)
            done += 1
    marked = {id for (id,) in await steps.db.fetch("select job_id from worker.job_step")}
    # Whoever was rescued before its mark was there has none, and no effect either.
    assert marked & set(met["no mark"]) == set()
    assert (lost, len(await effects(steps))) == (set(met["no mark"]), len(marked))
    assert len(marked) + len(lost) == done
    assert done > 200, "the machine is too slow for this to mean anything"
    assert met["no mark"], "no rescue was first"
    assert met["mark"] + met["passed by"], "no step was first"
