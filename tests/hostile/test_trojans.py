"""What a stranger plants where a step goes by: triggers on tables that it writes to, names in its way, RESET ROLE.

The daemon has a login of its own here, a member of worker_run and no more, as docs/security.md says.
"""

import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from tests.heart import configured, daemon, enqueue, row, until
from tests.sql.test_roles import SHADOWS

# Whatever the login may not do itself, nobody may do through it.
NEVER = (
    "set role worker_owner",
    "set role worker_operate",
    "set session authorization postgres",
    "reset session authorization; create role trojan",
    "grant worker_owner to worker_run",
    "alter role worker_owner login",
    "create role trojan superuser",
    "alter system set log_statement = 'all'",
    "copy (select 1) to program 'true'",
    "select pg_read_file('/etc/passwd')",
    "update worker.job_queue set status = 'completed'",
    "update worker.job_queue set payload = '{}'",
    "insert into worker.job_queue (job_type) values ('work')",
    "insert into worker.job_step (job_id, name, status, claim) values (1, 'a', 'completed', 1)",
    "delete from worker.job_queue",
    "truncate worker.job_queue",
    "lock table worker.job_queue in access exclusive mode",
    "alter table worker.job_queue disable row level security",
    "create trigger planted before update on worker.job_queue execute function evil.trojan()",
    "create or replace function worker.now() returns timestamptz language sql as 'select null::timestamptz'",
    "drop function worker.settle(bigint, worker.verdict[])",
    "create table worker.planted ()",
    "select setval('worker.claim_seq', 1)",
)
# What the daemon's login may, and the owner of a function has no need to.
THE_DAEMONS = (
    "select payload from worker.job_queue",
    "select worker.settle(1, '{}')",
    "select worker.claim(1, 1, '{work}', 10)",
    "select worker.declare('[]')",
    "select worker.declare_dead(1, 1)",
    "select worker.stop_backend(1, now(), true)",
    "select worker.progress(1, 1, 'x', '{}')",
    "select worker.cancel(1)",
    "select worker.enqueue('work')",
)
# evil.mine is the stranger's table; its trigger tries everything, and writes down who it was and what came of it.
PLANT = """
create schema evil; grant usage on schema evil to public;
create table evil.attacks (attack text);
create table evil.tried (attack text, who text, came text);
create table evil.mine (n bigint);
grant select on evil.attacks to public; grant insert on evil.tried, evil.mine to public;
create function evil.trojan() returns trigger language plpgsql as $$
declare
  attack text;
begin
  for attack in select a.attack from evil.attacks a loop
    begin
      execute attack;
      insert into evil.tried values (attack, current_user, 'passed');
    exception when others then
      insert into evil.tried values (attack, current_user, sqlstate);
    end;
  end loop;
  begin
    reset role;
    insert into evil.tried values ('reset role', current_user, 'harmless');
  exception when others then
    insert into evil.tried values ('reset role', current_user, sqlstate);
  end;
  return null;
end $$;
create trigger trojan after insert on evil.mine for each row execute function evil.trojan();
create function public.write_mine(job_id bigint) returns void language sql as
  $$ insert into evil.mine values (job_id) $$;
"""
JOBS = """
[job.work]
arguments = { job_id = "id" }
retry = { max_attempts = 1 }
[job.work.steps]
write = { sql = "write_mine" }
[job.other]
python = "tests.sample_jobs:echo"
"""


@dataclass
class Logins:
    """Two roles of this test: the daemon's login and the owner of the application's functions."""

    daemon: str
    app: str

    def dsn(self, dsn: str) -> str:
        return dsn.replace("postgres@", f"{self.daemon}@", 1)


@pytest.fixture
async def logins(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[Logins]:
    if "DATABASE_URL" in os.environ:
        pytest.skip("a login without a password is for our own server")
    made = Logins(*(f"{name}_{uuid.uuid4().hex[:8]}" for name in ("daemon", "app")))
    await connection.execute(f"create role {made.daemon} login in role worker_run; create role {made.app}")
    yield made
    # The daemon's connections may end a moment after the daemon.
    await until(connection, "select count(*) = 0 from pg_stat_activity where usename = $1", made.daemon)
    await connection.execute(
        f"reset search_path; drop owned by {made.daemon}, {made.app} cascade; drop role {made.daemon}, {made.app}"
    )


async def ran(connection: asyncpg.Connection, dsn: str, folder, logins: Logins) -> dict[str, tuple[str, str]]:
    """Run one job of each type; answers with (who, what came) for each attack that was tried on the way."""
    async with daemon(configured(folder, logins.dsn(dsn), JOBS)):
        jobs = [await enqueue(connection, name) for name in ("work", "other", "work")]
        await until(connection, "select bool_and(finished_at is not null) from worker.job_queue")
    assert [(await row(connection, job))["status"] for job in jobs] == ["completed"] * 3
    tried = await connection.fetch("select attack, who, came from evil.tried")
    return {found["attack"]: (found["who"], found["came"]) for found in tried}


async def plant(connection: asyncpg.Connection, attacks: tuple[str, ...]) -> None:
    await connection.execute(PLANT)
    await connection.executemany("insert into evil.attacks values ($1)", [(attack,) for attack in attacks])


async def test_a_trojan_trigger_gains_nothing_that_the_login_has_not(dsn, tmp_path, connection, logins):
    await plant(connection, NEVER)
    tried = await ran(connection, dsn, tmp_path, logins)
    assert tried.pop("reset role") == (logins.daemon, "harmless")
    assert set(tried) == set(NEVER)
    assert {who for who, _ in tried.values()} == {logins.daemon}
    assert {attack: came for attack, (_, came) in tried.items() if came == "passed"} == {}
    assert {came for _, came in tried.values()} <= {"42501", "0A000", "25001"}


async def test_under_a_function_of_the_applications_it_is_nobody_to_the_queue(dsn, tmp_path, connection, logins):
    """The advice of docs/security.md: what writes to others' tables is `security definer`, owned by no worker role."""
    await plant(connection, NEVER + THE_DAEMONS)
    await connection.execute(
        f"alter function public.write_mine owner to {logins.app};"
        "alter function public.write_mine security definer set search_path = pg_catalog, pg_temp"
    )
    tried = await ran(connection, dsn, tmp_path, logins)
    assert tried["reset role"] == (logins.app, "42501")  # refused within such a function
    assert set(tried) == {*NEVER, *THE_DAEMONS, "reset role"}
    assert {who for who, _ in tried.values()} == {logins.app}
    assert {attack: came for attack, (_, came) in tried.items() if came == "passed"} == {}


async def test_a_search_path_set_by_others_leads_no_statement_astray(dsn, tmp_path, connection, logins):
    """Names, operators and temporary tables in the way of every connection of the daemon, and of every function."""
    await connection.execute("create schema evil")
    shadows, _, _ = SHADOWS.partition("set search_path")
    await connection.execute(shadows)
    await connection.execute(
        f"""
        grant usage on schema evil to public;
        create function evil.pg_backend_pid() returns integer language sql as 'select 1';
        create function evil.pg_postmaster_start_time() returns timestamptz language sql as 'select now()';
        create function evil.clock_timestamp() returns timestamptz language sql as $$ select 'epoch'::timestamptz $$;
        create table public.mine (job_id bigint);
        grant insert on public.mine to {logins.daemon};
        create function public.write_mine(job_id bigint) returns void language sql as
          $$ insert into public.mine values (job_id) $$;
        create table evil.tried (attack text, who text, came text);
        """
    )
    database = await connection.fetchval("select current_database()")
    await connection.execute(f"alter database {database} set search_path = evil, worker, public, pg_catalog")
    victim = await asyncpg.connect(dsn)
    assert await victim.fetchval("select pg_backend_pid()") == 1  # whoever asks without a schema is led astray
    await victim.close()
    await ran(connection, dsn, tmp_path, logins)
    assert await connection.fetchval("select count(distinct job_id) from public.mine") == 2
    assert await connection.fetchval("select bool_and(created_at > '2020-01-01') from worker.job_queue")


async def test_what_a_step_leaves_in_pg_temp_shadows_nothing(dsn, tmp_path, connection, logins):
    await connection.execute(
        f"""
        grant temporary on database {await connection.fetchval("select current_database()")} to {logins.daemon};
        create schema evil; create table evil.tried (attack text, who text, came text);
        create function public.write_mine(job_id bigint) returns void language plpgsql as $$
        begin
          create temp table job_queue (id bigint, status text, claim bigint);
          create temp table job_step (job_id bigint, name text, status text, claim bigint);
          create temp table step_lock (key text); create temp table backend (pid integer);
          create temp table clock (at timestamptz, shift interval);
          create function pg_temp.now() returns timestamptz language sql as $f$ select 'epoch'::timestamptz $f$;
          create function pg_temp.clock_timestamp() returns timestamptz language sql as
            $f$ select 'epoch'::timestamptz $f$;
          set search_path = pg_temp, pg_catalog, worker;
        end $$;
        """
    )
    await ran(connection, dsn, tmp_path, logins)
    marks = await connection.fetch("select status, finished_at > '2020-01-01' as fresh from worker.job_step")
    assert [tuple(mark) for mark in marks] == [("completed", True)] * 2


WORDS = ["a'b", 'a"b', "a;drop table worker.job_queue;--", "$$; drop schema worker cascade; $$", "%s{x}\\", "é\u202e",
         "worker.claim(1, 1, null, 1)", "' || pg_sleep(600) || '"]  # fmt: skip


async def test_what_rows_name_is_never_a_part_of_a_statement(dsn, tmp_path, connection, logins):
    """Tenants, keys, sources, correlation ids and arguments that would be SQL if anybody pasted them into some."""
    await connection.execute(
        f"""
        create table public.said (word text, of text); grant insert on public.said to {logins.daemon};
        create function public.say(word text, of text) returns void language sql as
          $$ insert into public.said values (word, of) $$;
        """
    )
    jobs = """
[job.say]
arguments = { word = "word", of = "tenant_id" }
unique_key = "{word}"
concurrency_key = "{tenant_id}:{word}"
then = ["heard"]
[job.say.steps]
say = { sql = "say", tags = ["said"] }
[job.heard]
python = "tests.sample_jobs:echo"
"""
    async with daemon(configured(tmp_path, logins.dsn(dsn), jobs)):
        for word in WORDS:
            named = {"tenant_id": word, "correlation_id": word, "source": word}
            await enqueue(connection, "say", {"word": word}, **named)
        await until(connection, "select count(*) = $1 from worker.job_queue where status = 'completed'", 2 * len(WORDS))
    said = await connection.fetch("select word, of from public.said")
    assert {tuple(row) for row in said} == {(word, word) for word in WORDS}
    rows = await connection.fetch("select tenant_id, correlation_id from worker.job_queue")
    assert {tuple(row) for row in rows} == {(word, word) for word in WORDS}
