"""One step on a real server: its effect once, its end real, its failure on record."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import structlog

from tests.heart import Heart, becomes, effects, enqueue, heart, job, row, until
from tests.proxy import Proxy, proxied
from worker.connection import Connection
from worker.database import Database
from worker.errors import CancelRequested, LostClaim, StepTimeout
from worker.job import Job
from worker.step import Call, StepBusy, StepError, StepRunner, _due, _from_below

FUNCTIONS = """
create table fx (job_id bigint, step text, pid integer default pg_backend_pid());
create function plain(job_id bigint) returns jsonb language sql as
  $$ insert into fx (job_id, step) values (job_id, 'plain'); select '{"done": true}'::jsonb $$;
create function asleep(job_id bigint) returns void language plpgsql as
  $$ begin insert into fx (job_id, step) values (job_id, 'asleep'); perform pg_sleep(600); end $$;
create function gated(job_id bigint) returns void language plpgsql as
  $$ begin perform pg_advisory_lock_shared(77); insert into fx (job_id, step) values (job_id, 'gated'); end $$;
create function swallowing(job_id bigint) returns void language plpgsql as $$
begin
  insert into fx (job_id, step) values (job_id, 'swallowing');
  for i in 1..6000 loop
    begin
      perform pg_sleep(0.1);
    exception when query_canceled then
      null;
    end;
  end loop;
end $$;
create function broken(job_id bigint) returns void language plpgsql as
  $$ begin insert into fx (job_id, step) values (job_id, 'broken');
     raise exception 'no such season' using errcode = 'P0002'; end $$;
create sequence tries;
create function racing(job_id bigint, lost bigint) returns void language plpgsql as $$
begin
  insert into fx (job_id, step) values (job_id, 'racing');
  if nextval('tries') <= lost then raise exception 'deadlock detected' using errcode = '40P01'; end if;
end $$;
create table account (id int primary key, n int not null default 0);
insert into account values (1), (2);
create function both_ways(job_id bigint, a int, b int) returns void language plpgsql as $$
begin
  update account set n = n + 1 where id = a;
  -- The first time round each waits here until the other has its row too, so that they are bound to meet.
  if (select last_value < 3 from tries) then
    perform nextval('tries');
    for i in 1..600 loop
      exit when (select last_value >= 3 from tries);
      perform pg_sleep(0.01);
    end loop;
  end if;
  update account set n = n + 1 where id = b;
end $$;
create function says(job_id bigint, code text) returns void language plpgsql as $$
begin
  insert into fx (job_id, step) values (job_id, 'says');
  perform nextval('tries');
  raise exception 'said by the function' using errcode = code;
end $$;
create function says_at_commit() returns trigger language plpgsql as
  $$ begin perform nextval('tries'); raise exception 'said at the commit' using errcode = new.code; end $$;
create table saying (code text);
create constraint trigger says after insert on saying deferrable initially deferred
  for each row execute function says_at_commit();
create function says_later(job_id bigint, code text) returns void language sql as
  $$ insert into saying values (code) $$;
create table parent (id int primary key);
create table child (id int references parent deferrable initially deferred);
create function deferred(job_id bigint) returns void language sql as $$ insert into child values (99) $$;
create function changes_role(job_id bigint) returns void language plpgsql as
  $$ begin execute 'set role worker_tenant'; end $$;
"""
BACKEND = """
    select a.pid from pg_stat_activity a join worker.backend b using (pid) where b.duty = 'step' and a.state = 'active'
"""


def call(function: str, timeout: float = 60.0, more: str = "", **arguments: object) -> Call:
    text = f"select to_jsonb(r) from {function}(job_id => ($1 ->> 'job_id')::bigint{more}) r"
    return Call(function, function, text, arguments, ("tag",), timeout)


@pytest.fixture
async def parts(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[Heart]:
    await connection.execute(FUNCTIONS)
    async with heart(dsn) as opened:
        yield opened


@pytest.fixture
def runner(parts: Heart) -> StepRunner:
    return StepRunner(parts.database.steps, parts.queue)


@pytest.fixture
async def claimed(parts: Heart, connection: asyncpg.Connection) -> Job:
    await enqueue(connection)
    return await parts.one()


def of(job: Job, function: str, timeout: float = 60.0, more: str = "", **arguments: object) -> Call:
    return call(function, timeout, more, job_id=job.id, **arguments)


async def begun(parts: Heart, job: Job, *names: str) -> None:
    await parts.queue.begin_steps(job, list(names))


async def mark(connection: asyncpg.Connection, job: Job, step: str) -> asyncpg.Record | None:
    return await connection.fetchrow("select * from worker.job_step where job_id = $1 and name = $2", job.id, step)


async def test_effect_and_mark_are_one(runner, parts, claimed, connection):
    await begun(parts, claimed, "plain")
    assert await runner.run(claimed, of(claimed, "plain")) == {"done": True}
    found = await mark(connection, claimed, "plain")
    assert (found["status"], found["claim"], found["tags"]) == ("completed", claimed.claim, ["tag"])
    assert await effects(connection) == {(claimed.id, "plain"): 1}


async def test_a_step_that_is_marked_is_not_run_again(runner, parts, claimed, connection):
    await runner.run(claimed, of(claimed, "plain"))
    assert await runner.run(claimed, of(claimed, "plain")) is None
    assert await effects(connection) == {(claimed.id, "plain"): 1}


@pytest.fixture
async def behind(dsn: str, parts: Heart) -> AsyncIterator[tuple[Proxy, StepRunner]]:
    """A runner whose step connections go through a proxy."""
    async with proxied(dsn) as proxy:
        database = Database(dsn, proxy.dsn, 4, "public")
        await database.open(parts.queue.me)
        yield proxy, StepRunner(database.steps, parts.queue)
        await database.close()


async def test_a_step_whose_answer_is_lost_takes_effect_once(behind, claimed, connection):
    proxy, runner = behind
    proxy.cut_after = b"plain"
    await runner.run(claimed, of(claimed, "plain"))
    assert proxy.cuts == 1
    assert await effects(connection) == {(claimed.id, "plain"): 1}


async def test_a_step_that_was_never_sent_takes_effect_once(behind, claimed, connection):
    proxy, runner = behind
    proxy.cut_before = b"plain"
    assert await runner.run(claimed, of(claimed, "plain")) == {"done": True}
    assert proxy.cuts == 1
    assert await effects(connection) == {(claimed.id, "plain"): 1}


async def test_a_repeated_step_waits_for_its_orphan_and_finds_the_mark(behind, claimed, connection, second):
    """The connection is lost in the middle of the call; the orphan goes on, commits, and is the only one."""
    proxy, runner = behind
    await second.execute("select pg_advisory_lock(77)")
    # The orphan's server looks for its client only once a second; this one never does.
    await connection.execute("alter database {} set client_connection_check_interval = 0".format(
        await connection.fetchval("select current_database()")))  # fmt: skip
    running = asyncio.create_task(runner.run(claimed, of(claimed, "gated")))
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted"
    await until(connection, waiting)
    proxy.drop()
    behind_the_orphan = """
        select count(*) from pg_stat_activity
        where wait_event_type = 'Lock' and query like '%run_step%' and wait_event <> 'advisory'"""
    await until(connection, behind_the_orphan)
    await second.execute("select pg_advisory_unlock_all()")
    await asyncio.wait_for(running, 20)
    assert await effects(connection) == {(claimed.id, "gated"): 1}


async def test_a_step_whose_backend_is_ended_takes_effect_once(runner, parts, claimed, connection, second):
    await second.execute("select pg_advisory_lock(77)")
    running = asyncio.create_task(runner.run(claimed, of(claimed, "gated")))
    await until(connection, "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted")
    first = await connection.fetchval(BACKEND)
    await connection.execute("select pg_terminate_backend($1)", first)
    await second.execute("select pg_advisory_unlock_all()")
    await asyncio.wait_for(running, 20)
    assert await effects(connection) == {(claimed.id, "gated"): 1}
    assert await connection.fetchval("select pid from fx") != first


async def test_a_connection_that_goes_between_its_loan_and_the_call_is_no_failure(
    runner, claimed, connection, monkeypatch
):
    limit, ended = Connection.limit, []

    async def and_ends(self: Connection, seconds: float) -> None:
        await limit(self, seconds)
        if not ended:
            ended.append(self.get_server_pid())
            await connection.execute("select pg_terminate_backend($1)", ended[0])
            await becomes(self.is_closed)

    monkeypatch.setattr(Connection, "limit", and_ends)
    assert await runner.run(claimed, of(claimed, "plain")) == {"done": True}
    assert await effects(connection) == {(claimed.id, "plain"): 1}


@pytest.mark.parametrize("function", ["asleep", "swallowing"])
async def test_a_cancelled_step_is_really_stopped(runner, claimed, connection, function):
    """The fact is on the row before; a function that catches the cancel loses its connection instead."""
    running = asyncio.create_task(runner.run(claimed, of(claimed, function)))
    backend = await until(connection, BACKEND)
    await connection.execute("select worker.cancel($1)", claimed.id)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 20)
    await until(connection, "select not exists (select from pg_stat_activity where pid = $1)", backend)
    assert await effects(connection) == {}
    assert (await mark(connection, claimed, function)) is None


async def test_nothing_is_committed_after_the_claim_was_withdrawn(runner, parts, claimed, connection, second):
    await second.execute("select pg_advisory_lock(77)")
    running = asyncio.create_task(runner.run(claimed, of(claimed, "gated")))
    await until(connection, "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted")
    await connection.execute(
        "update worker.job_queue set claim = nextval('worker.claim_seq') where id = $1", claimed.id
    )
    await second.execute("select pg_advisory_unlock_all()")
    with pytest.raises(LostClaim):
        await asyncio.wait_for(running, 20)
    assert await effects(connection) == {}
    assert (await mark(connection, claimed, "gated")) is None


async def test_a_cancel_during_the_call_keeps_its_effect_out(runner, claimed, connection, second):
    await second.execute("select pg_advisory_lock(77)")
    running = asyncio.create_task(runner.run(claimed, of(claimed, "gated")))
    await until(connection, "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted")
    await connection.execute("select worker.cancel($1)", claimed.id)
    await second.execute("select pg_advisory_unlock_all()")
    with pytest.raises(CancelRequested):
        await asyncio.wait_for(running, 20)
    assert await effects(connection) == {}


async def test_the_statement_timeout_ends_a_step_and_is_recorded(runner, parts, claimed, connection):
    await begun(parts, claimed, "asleep")
    with pytest.raises(StepTimeout, match="asleep"):
        await runner.run(claimed, of(claimed, "asleep", timeout=0.2))
    found = await mark(connection, claimed, "asleep")
    assert (found["status"], "timeout" in found["error"]) == ("failed", True)
    assert await effects(connection) == {}
    assert await runner.run(claimed, of(claimed, "plain")) == {"done": True}  # the connection is as good as new


CANCEL = """
    select pg_cancel_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'worker step' and state = 'active'
"""


async def test_a_step_that_a_stranger_cancels_is_repeated(runner, claimed, connection, second):
    await second.execute("select pg_advisory_lock(77)")
    running = asyncio.create_task(runner.run(claimed, of(claimed, "gated")))
    await until(connection, CANCEL)
    await second.execute("select pg_advisory_unlock_all()")
    await asyncio.wait_for(running, 20)
    assert await effects(connection) == {(claimed.id, "gated"): 1}


async def test_a_step_that_is_cancelled_for_ever_did_not_run_late(runner, claimed, connection):
    running = asyncio.create_task(runner.run(claimed, of(claimed, "asleep")))
    while not running.done():
        await connection.fetch(CANCEL)
        await asyncio.sleep(0.01)
    with pytest.raises(StepError, match="57014"):
        await running
    assert await effects(connection) == {}


async def test_a_swallowing_function_does_not_outlive_its_timeout_for_long(runner, claimed, connection):
    """Its statement timeout is swallowed too; the client's deadline behind it stops it."""
    with pytest.raises((StepTimeout, StepError)):
        await asyncio.wait_for(runner.run(claimed, of(claimed, "swallowing", timeout=0.2)), 30)
    await until(connection, f"select not exists ({BACKEND})")
    assert await effects(connection) == {}


async def test_a_failure_is_recorded_and_its_effect_is_gone(runner, parts, claimed, connection):
    await begun(parts, claimed, "broken")
    with pytest.raises(StepError, match="P0002 no such season"):
        await runner.run(claimed, of(claimed, "broken"))
    found = await mark(connection, claimed, "broken")
    assert (found["status"], "no such season" in found["error"]) == ("failed", True)
    assert await effects(connection) == {}


async def test_a_constraint_that_speaks_at_commit_is_a_failure_too(runner, parts, claimed, connection):
    await begun(parts, claimed, "deferred")
    with pytest.raises(StepError, match="23503"):
        await runner.run(claimed, of(claimed, "deferred"))
    assert (await mark(connection, claimed, "deferred"))["status"] == "failed"


# What the daemon would believe of itself or of the server, had it not been the function that said so.
CODES = ("WK001", "WK006", "WK009", "WK010", "08000", "08006", "25006", "53100", "53300", "57P01", "57P03")


@pytest.mark.parametrize("function", ["says", "says_later"])
async def test_what_a_function_says_is_the_steps_error_and_no_more(runner, parts, claimed, connection, function):
    for code in CODES:
        await begun(parts, claimed, function)
        await connection.execute("alter sequence tries restart")
        step = of(claimed, function, more=", code => ($1 ->> 'code')::text", code=code)
        with pytest.raises(StepError, match=f"{code} said "):
            await asyncio.wait_for(runner.run(claimed, step), 20)
        assert (await mark(connection, claimed, function))["status"] == "failed"
        # Said once, and not repeated.
        assert tuple(await connection.fetchrow("select last_value, is_called from tries")) == (1, True)
    assert await effects(connection) == {}
    assert await runner.run(claimed, of(claimed, "plain")) == {"done": True}


OURS = "PL/pgSQL-Funktion worker.run_step(bigint,bigint,text,text,text,jsonb,text,text[]) Zeile 6 bei Zuweisung"
ITS = "PL/pgSQL-Funktion run_step(bigint,bigint,text,text,text,jsonb,text,text[]) Zeile 11 bei EXECUTE"


@pytest.mark.parametrize(
    ("severity", "context", "below"),
    [
        ("ERROR", f"PL/pgSQL-Funktion f() Zeile 3 bei RAISE\nSQL-Anweisung »select f()«\n{ITS}", True),
        ("ERROR", f"PL/pgSQL-Funktion worker.step_open(bigint) Zeile 9 bei SQL-Anweisung\n{OURS}", False),
        ("ERROR", f"PL/pgSQL-Funktion g() Zeile 1 bei RAISE\n{OURS}\nSQL-Anweisung »…«\n{ITS}\nportal, $1 = '7'", True),
        ("ERROR", "PL/pgSQL-Funktion trigger_at_commit() Zeile 3 bei RAISE", True),
        ("ERROR", None, False),
        ("FATAL", f"PL/pgSQL-Funktion f() Zeile 3 bei RAISE\n{ITS}", False),
    ],
)
def test_whose_error_it_is_is_read_in_whatever_language_the_server_speaks(severity, context, below):
    given = {"C": "25006", "M": "x", "S": "FEHLER", "V": severity} | ({"W": context} if context else {})
    assert _from_below(asyncpg.PostgresError.new(given)) is below


async def test_a_server_that_turned_read_only_is_waited_out(runner, claimed, connection):
    """A failover: the step was never let in, and is sent again."""
    await connection.execute("alter database {} set default_transaction_read_only = on".format(
        await connection.fetchval("select current_database()")))  # fmt: skip
    watched: list[BaseException] = []
    runner._watch.database_error = watched.append
    running = asyncio.create_task(runner.run(claimed, of(claimed, "plain")))
    await becomes(lambda: len(watched) > 0)
    assert {error.sqlstate for error in watched} == {"25006"}
    await connection.execute("set default_transaction_read_only = off")
    await connection.execute("alter database {} reset default_transaction_read_only".format(
        await connection.fetchval("select current_database()")))  # fmt: skip
    await connection.execute("select pg_terminate_backend(pid) from worker.backend where duty = 'step'")
    assert await asyncio.wait_for(running, 20) == {"done": True}


LEAVES = {
    "temporary": "create temp table left_here (a int)",
    "advisory_lock": "perform pg_advisory_lock(4711)",
    "listen": "listen somewhere",
    "cursor": "execute 'declare held cursor with hold for select 1'",
    "prepared": "execute 'prepare mine as select 1'",
    "search_path": "perform set_config('search_path', 'pg_catalog', false)",
    "deallocated": "execute 'deallocate all'",
}


def told(lines):
    return [line for line in lines if line["event"] == "step.leaked"]


async def test_what_a_step_leaves_on_its_connection_is_told_with_its_job(runner, claimed, connection):
    for kind, body in LEAVES.items():
        await connection.execute(
            f"create function leaves_{kind}(job_id bigint) returns void language plpgsql as $$ begin {body}; end $$"
        )
    with structlog.testing.capture_logs() as lines:
        for kind in LEAVES:
            await runner.run(claimed, of(claimed, f"leaves_{kind}"))
            await becomes(lambda: len(told(lines)) == list(LEAVES).index(kind) + 1)  # noqa: B023 - it is awaited here
    assert [(line["step"], line["left"]) for line in told(lines)] == [(f"leaves_{kind}", [kind]) for kind in LEAVES]
    assert {(line["function"], line["job_type"], line["job_id"], line["log_level"]) for line in told(lines)} == {
        (f"leaves_{kind}", "work", claimed.id, "warning") for kind in LEAVES
    }


def test_advisory_locks_are_looked_for_at_first_and_now_and_then():
    step = Call("looked_at", "f", "", {})
    looked = [run for run in range(1, 301) if _due(job(job_type="looked_at"), step)]
    assert looked == [*range(1, 11), 100, 200, 300]


async def test_a_missing_function_is_named(runner, parts, claimed):
    with pytest.raises(StepError, match="42883"):
        await runner.run(claimed, of(claimed, "gone"))


async def test_a_function_that_changes_role_is_no_harm_to_the_next(runner, parts, claimed, connection):
    with pytest.raises(StepError, match="42501"):
        await runner.run(claimed, of(claimed, "changes_role"))
    assert await runner.run(claimed, of(claimed, "plain")) == {"done": True}


async def test_a_lost_race_is_repeated(runner, claimed, connection):
    await runner.run(claimed, of(claimed, "racing", more=", lost => ($1 ->> 'lost')::bigint", lost=3))
    assert await effects(connection) == {(claimed.id, "racing"): 1}
    assert await connection.fetchval("select last_value from tries") == 4


async def test_a_race_lost_for_ever_is_a_failure(runner, parts, claimed, connection):
    await begun(parts, claimed, "racing")
    with pytest.raises(StepError, match="40P01"):
        await runner.run(claimed, of(claimed, "racing", more=", lost => ($1 ->> 'lost')::bigint", lost=1000))
    assert await connection.fetchval("select last_value from tries") == 4
    assert (await mark(connection, claimed, "racing"))["status"] == "failed"


async def test_two_steps_that_deadlock_both_take_effect(runner, parts, connection):
    await connection.execute("alter sequence tries restart; select nextval('tries')")
    more = ", a => ($1 ->> 'a')::int, b => ($1 ->> 'b')::int"
    await enqueue(connection)
    await enqueue(connection)
    one, other = (await parts.queue.claim(2)).jobs
    await asyncio.wait_for(
        asyncio.gather(
            runner.run(one, of(one, "both_ways", more=more, a=1, b=2)),
            runner.run(other, of(other, "both_ways", more=more, a=2, b=1)),
        ),
        30,
    )
    assert await connection.fetchval("select array_agg(n order by id) from account") == [2, 2]
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    await until(connection, f"select ({deadlocks}) > 0")


async def test_a_lock_held_elsewhere_for_the_whole_timeout_is_busy(runner, parts, claimed, connection, second):
    transaction = second.transaction()
    await transaction.start()
    await second.execute("insert into worker.step_lock values ('plain', $1)", f"job:{claimed.id}")
    with pytest.raises(StepBusy):
        await asyncio.wait_for(runner.run(claimed, of(claimed, "plain", timeout=2.5)), 30)
    await transaction.rollback()
    assert await effects(connection) == {}
    assert (await row(connection, claimed.id))["status"] == "running"


async def test_steps_of_one_key_exclude_each_other_across_jobs(runner, parts, connection, second):
    ids = [await enqueue(connection) for _ in range(2)]
    # Both running under one key, which the queue itself never does: it is the lock alone that is looked at.
    jobs = [(await parts.one())._replace(concurrency_key="k") for _ in ids]
    await second.execute("select pg_advisory_lock(77)")
    running = [asyncio.create_task(runner.run(each, of(each, "gated"))) for each in jobs]
    await until(
        connection,
        "select count(*) = 1 from pg_stat_activity where wait_event_type = 'Lock' and wait_event <> 'advisory'",
    )
    assert await connection.fetchval("select count(*) from pg_locks where objid = 77 and not granted") == 1
    await second.execute("select pg_advisory_unlock_all()")
    await asyncio.wait_for(asyncio.gather(*running), 20)
    assert await effects(connection) == {(job_id, "gated"): 1 for job_id in ids}


async def test_a_step_of_a_lost_claim_does_not_begin(runner, parts, claimed, connection):
    await connection.execute("update worker.job_queue set claim = nextval('worker.claim_seq')")
    with pytest.raises(LostClaim):
        await runner.run(claimed, of(claimed, "plain"))
    assert await effects(connection) == {}


async def test_a_result_that_is_no_json_for_python_is_no_trouble(runner, parts, claimed, connection):
    deep = "select (repeat('[', 2000) || repeat(']', 2000))::jsonb where ($1 ->> 'job_id') is not null"
    answer = await runner.run(claimed, Call("deep", "deep", deep, {"job_id": claimed.id}))
    assert answer is None or isinstance(answer, (list, str, dict))
    assert (await mark(connection, claimed, "deep"))["status"] == "completed"
    long = "select to_jsonb(repeat('x', 50000)) where ($1 ->> 'job_id') is not null"
    await runner.run(claimed, Call("long", "long", long, {"job_id": claimed.id}))
    assert (await mark(connection, claimed, "long"))["status"] == "completed"


async def test_a_result_keeps_every_digit(runner, claimed):
    number = 12345678901234567890123
    exactly = f"select '{number}'::jsonb where ($1 ->> 'job_id') is not null"
    assert await runner.run(claimed, Call("exactly", "exactly", exactly, {"job_id": claimed.id})) == number


async def test_a_stopped_connection_is_not_used_again(runner, parts, claimed, connection):
    running = asyncio.create_task(runner.run(claimed, of(claimed, "asleep")))
    await until(connection, BACKEND)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await becomes(lambda: parts.database.steps.get_size() - parts.database.steps.get_idle_size() == 0)
    assert await runner.run(claimed, of(claimed, "plain")) == {"done": True}
