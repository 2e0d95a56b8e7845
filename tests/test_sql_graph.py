"""Graphs of SQL functions: order, bound, failure, and a retry that runs only what is missing."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.heart import Heart, configured, effects, enqueue, heart, until
from worker.config import JobType
from worker.context import Context
from worker.errors import CancelRequested, DeclarationError, InvalidJob, LostClaim, StepsFailed, StepTimeout
from worker.handlers import build
from worker.handlers.sql_graph import SqlGraph
from worker.job import Job
from worker.outbound import Outbound
from worker.outcome import Completed, Snoozed

# A function that leaves evidence; with the body GATED it then waits at a gate of its own, an advisory lock.
PLAIN = """
create function {name}(job_id bigint) returns text language plpgsql as $$
begin
  insert into fx (job_id, step) values (job_id, '{name}');
  {body}
  return '{name}';
end $$;
"""
GATED = "perform pg_advisory_lock_shared(hashtext('{name}'));"


async def function(connection: asyncpg.Connection, *names: str, body: str = "") -> None:
    for name in names:
        await connection.execute(PLAIN.format(name=name, body=body.format(name=name)))


async def shut(connection: asyncpg.Connection, *names: str) -> None:
    for name in names:
        await connection.execute("select pg_advisory_lock(hashtext($1))", name)


async def open_gate(connection: asyncpg.Connection, name: str) -> None:
    await connection.execute("select pg_advisory_unlock(hashtext($1))", name)


WAITING = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
AT_GATE = """
    select exists (select from pg_locks where locktype = 'advisory' and not granted
                   and objid::bigint = hashtext($1)::bigint & 4294967295)
"""
EFFECT_ORDER = "select array_agg(step order by id) from fx"
STATES = "select name, status from worker.job_step where job_id = $1"


@pytest.fixture
async def parts(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[Heart]:
    await connection.execute("create table fx (id bigserial, job_id bigint, step text)")
    async with heart(dsn, size=6) as opened:
        yield opened


@pytest.fixture
async def job(parts: Heart, connection: asyncpg.Connection) -> Job:
    await enqueue(connection)
    return await parts.one()


@pytest.fixture
def declared(tmp_path, dsn):
    def make(steps: str, more: str = "parallel = 4") -> JobType:
        text = f'[job.work]\narguments = {{ job_id = "id" }}\n{more}\n[job.work.steps]\n{steps}'
        return configured(tmp_path, dsn, text).job["work"]

    return make


@pytest.fixture
def graph(parts, declared):
    async def make(steps: str, more: str = "parallel = 4") -> SqlGraph:
        handlers = await build({"work": declared(steps, more)}, parts.database.steps, Outbound())
        found = handlers["work"]
        assert isinstance(found, SqlGraph)
        return found

    return make


def context(parts: Heart, job: Job) -> Context:
    return Context([job], {}, parts.queue, parts.database.steps)


async def states(connection: asyncpg.Connection, job: Job) -> dict[str, str]:
    return {found["name"]: found["status"] for found in await connection.fetch(STATES, job.id)}


async def again(connection: asyncpg.Connection, parts: Heart, job: Job) -> Job:
    """The job's next attempt."""
    await connection.execute("update worker.job_queue set status = 'pending', queued = true where id = $1", job.id)
    return await parts.one()


async def test_needs_are_respected(parts, job, graph, connection):
    await function(connection, "a", "b", "c", "d")
    run = await graph(
        'd = { sql = "d", needs = ["b", "c"] }\nc = { sql = "c", needs = ["a"] }\n'
        'b = { sql = "b", needs = ["a"] }\na = { sql = "a" }\n'
    )
    came = await run(context(parts, job))
    assert came == Completed({"a": "a", "b": "b", "c": "c", "d": "d"})
    order = await connection.fetchval(EFFECT_ORDER)
    assert (order[0], order[-1], sorted(order)) == ("a", "d", ["a", "b", "c", "d"])
    assert set((await states(connection, job)).values()) == {"completed"}


async def test_steps_start_as_their_needs_are_done_never_in_waves(parts, job, graph, connection, second):
    """b needs a; while the slow sister of a still runs, b is already done."""
    await function(connection, "a", "b")
    await function(connection, "slow", body=GATED)
    await shut(second, "slow")
    run = await graph('a = { sql = "a" }\nb = { sql = "b", needs = ["a"] }\nslow = { sql = "slow" }\n')
    running = asyncio.create_task(run(context(parts, job)))
    await until(connection, "select exists (select from worker.job_step where name = 'b' and status = 'completed')")
    await until(connection, "select status = 'running' from worker.job_step where name = 'slow'")
    await open_gate(second, "slow")
    await asyncio.wait_for(running, 20)


async def test_no_more_than_parallel_run_at_once(parts, job, graph, connection, second):
    names = ("a", "b", "c", "d")
    await function(connection, *names, body=GATED)
    await shut(second, *names)
    run = await graph("".join(f'{name} = {{ sql = "{name}" }}\n' for name in names), "parallel = 2")
    running = asyncio.create_task(run(context(parts, job)))
    for done in range(4):
        await until(connection, f"select ({WAITING}) = $1", min(2, 4 - done))
        at = [name for name in names if await connection.fetchval(AT_GATE, name)]
        await until(connection, "select count(*) = $1 from worker.job_step where status = 'running'", len(at))
        await open_gate(second, at[0])
        await until(connection, "select count(*) = $1 from worker.job_step where status = 'completed'", done + 1)
    assert isinstance(await asyncio.wait_for(running, 20), Completed)


async def test_the_longest_remaining_path_goes_first(parts, job, graph, connection):
    """Unmeasured, the chain is longer than any single step."""
    await function(connection, "single", "head", "middle", "tail")
    run = await graph(
        'single = { sql = "single" }\nhead = { sql = "head" }\nmiddle = { sql = "middle", needs = ["head"] }\n'
        'tail = { sql = "tail", needs = ["middle"] }\n',
        "parallel = 1",
    )
    await run(context(parts, job))
    assert (await connection.fetchval(EFFECT_ORDER))[0] == "head"


async def test_measured_times_decide_the_order(parts, connection, graph):
    await function(connection, "short", "long")
    earlier = await enqueue(connection)
    await connection.execute(
        "insert into worker.job_step (job_id, name, status, claim, started_at, finished_at) values"
        " ($1, 'short', 'completed', 1, now() - interval '1 s', now()),"
        " ($1, 'long', 'completed', 1, now() - interval '9 s', now())",
        earlier,
    )
    await connection.execute(
        "update worker.job_queue set status = 'completed', queued = false, finished_at = now() where id = $1", earlier
    )
    await enqueue(connection)
    run = await graph('short = { sql = "short" }\nlong = { sql = "long" }\n', "parallel = 1")
    await run(context(parts, await parts.one()))
    assert await connection.fetchval(EFFECT_ORDER) == ["long", "short"]


async def test_a_failed_step_stops_no_other_and_its_dependents_stay_waiting(parts, job, graph, connection):
    await function(connection, "good", "after", "behind")
    await function(connection, "bad", "worse", body="raise exception 'no season for {name}';")
    run = await graph(
        'bad = { sql = "bad" }\nworse = { sql = "worse" }\nafter = { sql = "after", needs = ["bad", "good"] }\n'
        'behind = { sql = "behind", needs = ["after"] }\ngood = { sql = "good" }\n'
    )
    with pytest.raises(StepsFailed) as failed:
        await run(context(parts, job))
    assert "no season for bad" in str(failed.value)
    assert "no season for worse" in str(failed.value)
    assert await states(connection, job) == {
        "bad": "failed", "worse": "failed", "good": "completed", "after": "waiting", "behind": "waiting",
    }  # fmt: skip


async def test_a_retry_runs_only_what_is_missing(parts, job, graph, connection):
    await function(connection, "good", "after")
    await function(connection, "bad", body="raise exception 'not yet';")
    run = await graph(
        'bad = { sql = "bad" }\nafter = { sql = "after", needs = ["bad", "good"] }\ngood = { sql = "good" }\n'
    )
    with pytest.raises(StepsFailed):
        await run(context(parts, job))
    await connection.execute("drop function bad")
    await function(connection, "bad")
    came = await run(context(parts, await again(connection, parts, job)))
    assert came == Completed({"bad": "bad", "after": "after"})
    assert await effects(connection) == {(job.id, name): 1 for name in ("good", "bad", "after")}


async def test_an_optional_step_that_fails_counts_as_done(parts, job, graph, connection):
    await function(connection, "after")
    await function(connection, "bad", body="raise exception 'never mind';")
    run = await graph('bad = { sql = "bad", optional = true }\nafter = { sql = "after", needs = ["bad"] }\n')
    assert await run(context(parts, job)) == Completed({"after": "after"})
    assert await states(connection, job) == {"bad": "failed", "after": "completed"}


async def test_a_busy_step_snoozes_and_keeps_the_steps(parts, job, graph, connection, second):
    await function(connection, "good", "busy")
    await second.execute("begin")
    await second.execute("insert into worker.step_lock values ('busy', $1)", f"job:{job.id}")
    run = await graph('good = { sql = "good" }\nbusy = { sql = "busy", timeout = "2500ms" }\n')
    assert await asyncio.wait_for(run(context(parts, job)), 30) == Snoozed(1.0, keep_steps=True)
    await second.execute("rollback")
    assert (await states(connection, job))["good"] == "completed"
    assert await run(context(parts, await again(connection, parts, job))) == Completed({"busy": "busy"})
    assert await effects(connection) == {(job.id, "good"): 1, (job.id, "busy"): 1}


async def test_a_busy_step_beside_a_failed_one_is_a_failure(parts, job, graph, connection, second):
    await function(connection, "busy")
    await function(connection, "bad", body="raise exception 'really';")
    await second.execute("begin")
    await second.execute("insert into worker.step_lock values ('busy', $1)", f"job:{job.id}")
    run = await graph('bad = { sql = "bad" }\nbusy = { sql = "busy", timeout = "2500ms" }\n')
    with pytest.raises(StepsFailed, match="really"):
        await asyncio.wait_for(run(context(parts, job)), 30)
    await second.execute("rollback")


async def test_steps_that_only_ran_out_of_time_are_a_timeout(parts, job, graph, connection):
    await function(connection, "slow", body="perform pg_sleep(600);")
    run = await graph('slow = { sql = "slow", timeout = "100ms" }\n')
    with pytest.raises(StepTimeout, match="slow"):
        await run(context(parts, job))


async def test_a_lost_claim_ends_the_attempt_as_such(parts, job, graph, connection, second):
    await function(connection, "a", body=GATED)
    await function(connection, "b")
    await shut(second, "a")
    run = await graph('a = { sql = "a" }\nb = { sql = "b", needs = ["a"] }\n')
    running = asyncio.create_task(run(context(parts, job)))
    await until(connection, AT_GATE, "a")
    await connection.execute("update worker.job_queue set claim = nextval('worker.claim_seq')")
    await open_gate(second, "a")
    with pytest.raises(LostClaim):
        await asyncio.wait_for(running, 20)
    assert await effects(connection) == {}


async def test_a_cancel_request_ends_the_attempt_as_such(parts, job, graph, connection, second):
    await function(connection, "a", body=GATED)
    await shut(second, "a")
    run = await graph('a = { sql = "a" }\n')
    running = asyncio.create_task(run(context(parts, job)))
    await until(connection, AT_GATE, "a")
    await connection.execute("select worker.cancel($1)", job.id)
    await open_gate(second, "a")
    with pytest.raises(CancelRequested):
        await asyncio.wait_for(running, 20)
    assert await effects(connection) == {}


async def test_a_cancelled_attempt_stops_every_step(parts, job, graph, connection):
    await function(connection, "a", "b", "c", body="perform pg_sleep(600);")
    run = await graph('a = { sql = "a" }\nb = { sql = "b" }\nc = { sql = "c", needs = ["a"] }\n')
    running = asyncio.create_task(run(context(parts, job)))
    sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    await until(connection, f"select ({sleeping}) = 2")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 20)
    await until(connection, f"select ({sleeping}) = 0")
    assert await effects(connection) == {}


async def test_arguments_come_from_columns_and_payload_with_their_types(parts, connection, tmp_path, dsn):
    await connection.execute(
        "create function typed(tenant uuid, day date, amount numeric, flag boolean, list jsonb, other text default 'x'"
        ") returns text language sql as $$ select concat_ws(' ', tenant, day, amount, flag, list, other) $$"
    )
    text = """
[job.work]
arguments = { tenant = "tenant_id", day = "day", amount = "amount", flag = "flag", list = "list" }
[job.work.steps]
typed = { sql = "typed" }
"""
    handlers = await build(configured(tmp_path, dsn, text).job, parts.database.steps, Outbound())
    tenant = "6f1a3c9e-0000-4000-8000-000000000001"
    payload = {"tenant_id": tenant, "day": "2026-11-21", "amount": 1.25, "flag": True, "list": [1, {"a": 2}]}
    await enqueue(connection, payload=payload)
    came = await handlers["work"](context(parts, await parts.one()))
    assert came == Completed({"typed": f'{tenant} 2026-11-21 1.25 t [1, {{"a": 2}}] x'})
    await enqueue(connection, payload={"tenant_id": tenant})
    with pytest.raises(InvalidJob, match="no key 'day'"):
        await handlers["work"](context(parts, await parts.one()))


@pytest.mark.parametrize(
    "returns",
    [
        ("returns void language sql as $$ $$", None),
        ("returns int language sql as $$ select 7 $$", 7),
        ("returns setof int language sql as $$ select generate_series(1, 2) $$", [{"f": 1}, {"f": 2}]),
        ("returns table (a int, b text) language sql as $$ select 1, 'x' $$", [{"a": 1, "b": "x"}]),
        ("returns jsonb language sql as $$ select '{\"k\": [1]}'::jsonb $$", {"k": [1]}),
    ],
    ids=["void", "scalar", "set", "table", "jsonb"],
)
async def test_whatever_a_function_returns_is_kept(parts, job, graph, connection, returns):
    body, kept = returns
    await connection.execute(f"create function f(job_id bigint) {body}")
    run = await graph('f = { sql = "f" }\n')
    assert await run(context(parts, job)) == Completed({"f": kept})


@pytest.mark.parametrize(
    ("create", "told"),
    [
        ("", "does not exist"),
        ("create function f(other bigint) returns void language sql as $$ $$", "no argument job_id"),
        ("create function f() returns void language sql as $$ $$", "takes 0 arguments"),
        ("create function f(job_id bigint, more int) returns void language sql as $$ $$", "takes 2 arguments"),
        ("create procedure f(job_id bigint) language sql as $$ $$", "not a plain function"),
        (
            "create function f(job_id bigint) returns void language sql as $$ $$;"
            "create function f(job_id text) returns void language sql as $$ $$",
            "not unique",
        ),
    ],
    ids=["missing", "renamed", "too few", "too many", "procedure", "twice"],
)
async def test_a_function_that_is_not_as_declared_is_named_with_type_and_step(connection, graph, create, told):
    await connection.execute(create or "select 1")
    with pytest.raises(DeclarationError) as error:
        await graph('fine = { sql = "pg_catalog.pg_sleep" }\nwrong = { sql = "f" }\n')
    faults = error.value.faults
    assert [fault for fault in faults if fault.startswith("job.work.steps.wrong: ") and told in fault]
    assert [fault for fault in faults if fault.startswith("job.work.steps.fine: ")]  # all faults in one look


async def test_a_qualified_function_is_found_whatever_the_search_path(parts, job, graph, connection):
    await connection.execute("create schema apart")
    await connection.execute("create function apart.f(job_id bigint) returns int language sql as $$ select 1 $$")
    run = await graph('f = { sql = "apart.f" }\n')
    assert await run(context(parts, job)) == Completed({"f": 1})


@pytest.mark.parametrize("number", ["12345678901234567.89", "18446744073709551617", "-0.1", "1e3", "9" * 300])
async def test_a_number_reaches_its_function_with_every_digit(parts, connection, tmp_path, dsn, number):
    await connection.execute(
        "create table got (n text); create function exact(n numeric) returns void language sql"
        " as $$ insert into got values (n::text) $$"
    )
    text = '[job.work]\narguments = { n = "n" }\nsteps = { one = { sql = "exact" } }\n'
    handlers = await build(configured(tmp_path, dsn, text).job, parts.database.steps, Outbound())
    await connection.execute(
        "insert into worker.job_queue (job_type, payload) values ('work', $1)", f'{{"n": {number}}}'
    )
    await handlers["work"](context(parts, await parts.one()))
    assert await connection.fetchval("select n::numeric = $1::text::numeric from got", number)


async def test_arrays_of_the_payload_reach_array_arguments(parts, connection, tmp_path, dsn):
    await connection.execute(
        "create function listed(ids bigint[], sums numeric[], names text[]) returns text language sql"
        " as $$ select concat_ws(' ', ids, sums, names) $$"
    )
    names = 'arguments = { ids = "ids", sums = "sums", names = "names" }'
    text = f'[job.work]\n{names}\nsteps = {{ one = {{ sql = "listed" }} }}\n'
    handlers = await build(configured(tmp_path, dsn, text).job, parts.database.steps, Outbound())
    payload = '{"ids": [2, null, 1], "sums": [12345678901234567890123.5], "names": []}'
    await connection.execute("insert into worker.job_queue (job_type, payload) values ('work', $1)", payload)
    came = await handlers["work"](context(parts, await parts.one()))
    assert came == Completed({"one": "{2,NULL,1} {12345678901234567890123.5} {}"})


async def test_an_argument_nested_too_deep_is_invalid_at_once(parts, connection, tmp_path, dsn):
    await connection.execute("create function deep(n jsonb) returns void language sql as $$ select null $$")
    text = '[job.work]\narguments = { n = "n" }\nsteps = { one = { sql = "deep" } }\n'
    handlers = await build(configured(tmp_path, dsn, text).job, parts.database.steps, Outbound())
    payload = '{"n": ' + "[" * 600 + "]" * 600 + "}"
    await connection.execute("insert into worker.job_queue (job_type, payload) values ('work', $1)", payload)
    with pytest.raises(InvalidJob):
        await handlers["work"](context(parts, await parts.one()))
