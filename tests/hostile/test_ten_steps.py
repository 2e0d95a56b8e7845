"""Ten SQL steps side by side of which one fails, one hangs, two deadlock and one commits late: each for itself."""

from tests.heart import QUICK, configured, daemon, effects, enqueue, row, until

GOOD = [f"good_{n}" for n in range(5)]
BAD = ["fails", "hangs", "there", "back", "late"]
# What goes wrong goes wrong in the first attempt only.
FUNCTIONS = """
create table fx (job_id bigint, step text);
create table account (id int primary key, n int not null default 0);
insert into account values (1), (2);
create function first_attempt(job bigint) returns boolean language sql as
  $$ select attempt = 1 from worker.jobs where id = job $$;
create function fails(job_id bigint) returns void language plpgsql as $$ begin
  insert into fx values (job_id, 'fails'); perform pg_sleep(0.05);
  if first_attempt(job_id) then raise exception 'not the first time'; end if; end $$;
create function hangs(job_id bigint) returns void language plpgsql as $$ begin
  insert into fx values (job_id, 'hangs');
  if first_attempt(job_id) then perform pg_sleep(600); end if; end $$;
create function there(job_id bigint) returns void language plpgsql as $$ begin
  insert into fx values (job_id, 'there'); update account set n = n + 1 where id = 1; perform pg_sleep(0.2);
  update account set n = n + 1 where id = 2; end $$;
create function back(job_id bigint) returns void language plpgsql as $$ begin
  insert into fx values (job_id, 'back'); update account set n = n + 1 where id = 2; perform pg_sleep(0.2);
  update account set n = n + 1 where id = 1; end $$;
create function late(job_id bigint) returns void language plpgsql as $$ begin
  insert into fx values (job_id, 'late'); perform pg_sleep({late}); end $$;
"""
SIMPLE = """
create function {name}(job_id bigint) returns void language sql as $$ insert into fx values (job_id, '{name}') $$;
"""
JOBS = """
[job.ten]
arguments = { job_id = "id" }
parallel = 10
retry = { first = "1ms", max_attempts = 3 }
[job.ten.steps]
""" + "\n".join(f'{name} = {{ sql = "{name}", timeout = "{1 if name == "hangs" else 60}s" }}' for name in GOOD + BAD)
STEPS = "select name, status, attempt, error from worker.job_step where job_id = $1"
NONE_RUNS = """
    select count(*) = 0 from pg_stat_activity
    where datname = current_database() and state = 'active' and query ~ 'run_step' and pid <> pg_backend_pid()
"""
DEADLOCKS = "select deadlocks > 0 from pg_stat_database where datname = current_database()"


async def test_each_step_is_as_it_went_and_a_retry_runs_only_what_is_missing(dsn, tmp_path, connection):
    await connection.execute(FUNCTIONS.replace("{late}", "1.5") + "".join(SIMPLE.format(name=name) for name in GOOD))
    config = configured(tmp_path, dsn, JOBS, worker=QUICK, database='search_path = "public"\nsteps = 10')
    async with daemon(config):
        job = await enqueue(connection, "ten")
        await until(connection, "select finished_at is not null from worker.job_queue where id = $1", job, seconds=60)
    found = await row(connection, job)
    assert (found["status"], found["attempt"]) == ("completed", 2)
    assert ("fails" in found["errors"], "hangs" in found["errors"]) == (True, True)
    attempts = {each["name"]: each["attempt"] for each in await connection.fetch(STEPS, job)}
    assert attempts == {**dict.fromkeys([*GOOD, "there", "back", "late"], 1), "fails": 2, "hangs": 2}
    assert await effects(connection) == {(job, name): 1 for name in GOOD + BAD}
    assert await connection.fetchval("select array_agg(n order by id) from account") == [2, 2]
    await until(connection, DEADLOCKS)


async def test_a_job_that_is_cancelled_meanwhile_gets_no_effect_more(dsn, tmp_path, connection):
    """The late ones would commit under a claim that is over: nothing of them stays."""
    await connection.execute(FUNCTIONS.replace("{late}", "60") + "".join(SIMPLE.format(name=name) for name in GOOD))
    config = configured(tmp_path, dsn, JOBS, worker=QUICK, database='search_path = "public"\nsteps = 10')
    async with daemon(config):
        job = await enqueue(connection, "ten")
        await until(connection, "select count(*) >= 5 from fx")
        await connection.execute("select worker.cancel($1)", job)
        await until(connection, "select status = 'cancelled' from worker.job_queue where id = $1", job)
        done = await effects(connection)
        await until(connection, NONE_RUNS)
        assert await effects(connection) == done
    marked = {each["name"] for each in await connection.fetch(STEPS, job) if each["status"] == "completed"}
    assert {name for _, name in done} == marked
    assert not {"hangs", "late"} & marked
