"""Functions that nobody wrote for this project: the graph runs them, and leaves the connection clean for the next user.

One step connection for all, so that the next user is bound to get the very connection that was ill-treated.
"""

import re
from typing import Any

import asyncpg
import orjson
import pytest
import structlog

from tests.heart import QUICK, configured, daemon, enqueue, row, until

ONE = 'search_path = "public"\nsteps = 1'
FINISHED = "select finished_at is not null from worker.job_queue where id = $1"
OWN = """
create table fx (job_id bigint, step text);
create table standing (team int primary key, points int not null);
create sequence counted;
create function looks() returns jsonb language sql as $$
  select to_jsonb(l) from (select current_user::text as "user", current_setting('role') as role,
    current_setting('search_path') as search_path, coalesce(current_setting('app.tenant', true), '') as tenant,
    current_setting('transaction_read_only') as read_only, current_setting('transaction_isolation') as isolation,
    current_setting('work_mem') = (select boot_val || 'kB' from pg_settings where name = 'work_mem')
      or current_setting('work_mem') = '4MB' as work_mem, current_setting('client_min_messages') as messages,
    current_setting('timezone') <> 'Pacific/Kiritimati' as zone, current_setting('lock_timeout') as lock_timeout,
    (select count(*) from pg_class where relpersistence = 't' and relkind = 'r'
       and pg_table_is_visible(oid)) as temporary,
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
    (select count(*) from pg_listening_channels()) as channels,
    (select count(*) from pg_cursors where is_holdable) as cursors) l $$;
"""
CLEAN = {
    "user": "postgres", "role": "none", "search_path": "public", "tenant": "", "read_only": "off",
    "isolation": "read committed", "work_mem": True, "messages": "warning", "zone": True, "lock_timeout": "0",
    "temporary": 0, "locks": 0, "channels": 0, "cursors": 0,
}  # fmt: skip
# Each: its body, what becomes of the job, and what its error says. A step's effect stands exactly when it completed.
FUNCTIONS: dict[str, tuple[str, str, str]] = {
    "notices": ("for i in 1..10000 loop raise notice 'row % of many', i; end loop;", "completed", ""),
    "warnings": ("for i in 1..10000 loop raise warning 'row % of many', i; end loop;", "completed", ""),
    "debugging": (
        "perform set_config('client_min_messages', 'debug5', false);"
        " for i in 1..2000 loop raise debug 'row %', i; end loop;", "completed", "",
    ),
    "temporary": (
        "create temp table work as select * from generate_series(1, 1000);"
        " create temp table fx_copy (like fx); create temp table job_queue (id int);"
        " create temp table pg_class (a int);",
        "completed", "",
    ),
    "settings": (
        "perform set_config('search_path', 'nowhere', false), set_config('app.tenant', 'x', false),"
        " set_config('work_mem', '64kB', false), set_config('timezone', 'Pacific/Kiritimati', false),"
        " set_config('lock_timeout', '7s', false), set_config('default_transaction_isolation', 'serializable', false),"
        " set_config('default_transaction_read_only', 'on', false),"
        " set_config('session_replication_role', 'local', false);",
        "completed", "",
    ),
    "roles": ("set role worker_tenant;", "failed", "42501"),
    "roles_and_back": ("set role worker_tenant; reset role;", "completed", ""),
    "reraises": (
        "begin insert into standing values (1, 1), (1, 2); exception when others then"
        " raise exception 'failed: %', sqlerrm; end;", "failed", "P0001 failed: duplicate key",
    ),
    "reraises_a_race": (
        "begin raise exception 'deadlock detected' using errcode = '40P01'; exception when others then"
        " raise exception 'failed: %', sqlerrm using errcode = 'P0001'; end;", "failed", "P0001 failed: deadlock",
    ),
    "swallows_errors": (
        "for i in 1..500 loop begin perform 1 / 0; exception when others then null; end; end loop;", "completed", "",
    ),
    "catches_cancellation": (
        "begin perform pg_sleep(600); exception when query_canceled then"
        " raise exception 'stopped: %', sqlerrm using errcode = 'P0001'; end;", "failed", "P0001 stopped",
    ),
    "ignores_one_cancellation": (
        "begin perform pg_sleep(600); exception when query_canceled then null; end;", "completed", "",
    ),
    "runs_long": ("perform pg_sleep(600);", "failed", "ran past its timeout of 0.5 s"),
    "computes_long": ("loop end loop;", "failed", "ran past its timeout of 0.5 s"),
    "deletes_then_inserts": (
        "delete from standing; insert into standing select n, n from generate_series(10, 29) n;", "completed", "",
    ),
    "deletes_then_fails": (
        "delete from standing; insert into standing values (1, null);", "failed", "23502",
    ),
    "advisory_locks": (
        "perform pg_advisory_lock(4711), pg_advisory_lock(4711), pg_advisory_lock_shared(1, 2),"
        " pg_advisory_xact_lock(99);", "completed", "",
    ),
    "advisory_locks_then_fails": ("perform pg_advisory_lock(4712); perform 1 / 0;", "failed", "22012"),
    "cursors": (
        "execute 'declare held cursor with hold for select * from generate_series(1, 5000)';"
        " execute 'declare brief cursor for select 1';", "completed", "",
    ),
    "listens": (
        "execute 'listen standings'; execute 'listen other'; perform pg_notify('standings', 'x');", "completed", "",
    ),
    "prepares": ("execute 'prepare mine as select 1';", "completed", ""),
    "deallocates": ("execute 'deallocate all';", "completed", ""),
    "commits": ("commit;", "failed", "2D000"),
    "huge_error": ("raise exception '%', repeat('x', 1000000);", "failed", "P0001 x{100}"),
    "control_characters": ("raise exception E'\\x1b[2J\\x07\\r\\n%', 'x';", "failed", "P0001"),
    "odd_sqlstate": ("raise exception 'own' using errcode = 'ZZ999';", "failed", "ZZ999 own"),
    "null_message": ("raise exception '%', null;", "failed", "P0001"),
}  # fmt: skip


# What the log says that they left behind.
LEAKS = {
    "temporary": ["temporary"],
    "settings": ["search_path"],
    "advisory_locks": ["advisory_lock"],
    "advisory_locks_then_fails": ["advisory_lock"],
    "cursors": ["cursor"],
    "listens": ["listen"],
    "prepares": ["prepared"],
    "deallocates": ["deallocated"],
}


def patience(name: str) -> str:
    """Short for those that are to run into it, long for the others on a machine that is busy."""
    body = FUNCTIONS[name][0] if name in FUNCTIONS else ""
    return "500ms" if "pg_sleep" in body or "loop end" in body else "30s"


def declared(names: list[str]) -> str:
    return (
        "\n".join(
            f'[job.{name}]\narguments = {{ job_id = "id" }}\nretry = {{ first = "1ms", max_attempts = 1 }}\n'
            f'[job.{name}.steps]\n{name} = {{ sql = "{name}", timeout = "{patience(name)}" }}'
            for name in names
        )
        + '\n[job.looks.steps]\nlooks = { sql = "looks" }'
    )


async def run(connection: asyncpg.Connection, job_type: str, payload: Any = None) -> asyncpg.Record:
    job = await enqueue(connection, job_type, payload)
    await until(connection, FINISHED, job)
    return await row(connection, job)


async def test_after_each_the_connection_is_clean(dsn, tmp_path, connection):
    await connection.execute(OWN)
    for name, (body, _, _) in FUNCTIONS.items():
        await connection.execute(
            f"create function {name}(job_id bigint) returns void language plpgsql as $body$ begin"
            f" insert into public.fx values (job_id, '{name}'); {body} end $body$"
        )
    came: dict[str, Any] = {}
    config = configured(tmp_path, dsn, declared(list(FUNCTIONS)), worker=QUICK, database=ONE)
    with structlog.testing.capture_logs() as lines:
        async with daemon(config) as (_, task, _me):
            for name, (_, status, says) in FUNCTIONS.items():
                found = await run(connection, name)
                said = orjson.loads(found["errors"] or '[{"message": ""}]')[-1]["message"]
                if found["status"] != status or not re.search(says, said) or found["attempt"] != 1:
                    came[name] = (found["status"], said[:300])
                if found["status"] == "failed" and len(said) > 2_000:
                    came[name] = len(said)
                seen = await run(connection, "looks")
                result = orjson.loads(seen["result"] or "{}").get("looks")
                if result != CLEAN:
                    came[f"after {name}"] = (result, seen["errors"])
            assert not task.done()
    assert came == {}
    told = {line["job_type"]: line["left"] for line in lines if line["event"] == "step.leaked"}
    assert told == LEAKS
    done = {name for name, (_, status, _) in FUNCTIONS.items() if status == "completed"}
    assert {each["step"] for each in await connection.fetch("select step from fx")} == done
    assert await connection.fetchval("select count(*) from standing") == 20


async def test_all_of_them_at_once(dsn, tmp_path, connection):
    """Side by side on three connections, three times each: nobody's state reaches anybody else's step."""
    await connection.execute(OWN)
    names = [name for name, (_, status, _) in FUNCTIONS.items() if status == "completed" and name not in (
        "notices", "warnings", "advisory_locks", "deletes_then_inserts", "ignores_one_cancellation")]  # fmt: skip
    for name in names:
        await connection.execute(
            f"create function {name}(job_id bigint) returns void language plpgsql as $body$ begin"
            f" insert into public.fx values (job_id, '{name}'); {FUNCTIONS[name][0]} end $body$"
        )
    for _ in range(3):
        for name in names:
            await enqueue(connection, name)
            await enqueue(connection, "looks")
    database = 'search_path = "public"\nsteps = 3'
    async with daemon(configured(tmp_path, dsn, declared(names), worker=QUICK, database=database)) as (_, task, _me):
        await until(connection, "select bool_and(finished_at is not null) from worker.job_queue")
        assert not task.done()
    rows = await connection.fetch(
        "select job_type, status, attempt, result->'looks' as seen, errors from worker.job_queue"
    )
    assert [(r["job_type"], r["errors"]) for r in rows if (r["status"], r["attempt"]) != ("completed", 1)] == []
    seen = [orjson.loads(r["seen"]) for r in rows if r["job_type"] == "looks"]
    assert seen == [CLEAN] * (3 * len(names))


# Public packages that the server's contrib ships, called as they are, without a wrapper. Only functions whose arguments
# have names, or that have none, can be steps: arguments go by name. Most of contrib's take them by position
# (similarity, crosstab, normal_rand), and a start refuses those with a sentence; see the next test.
PACKAGES = {
    "amcheck": ("verify_heapam", {"relation": "'standing'"}),
    "pgstattuple": ("pgstattuple_approx", {"reloid": "'standing'"}),
    "pgrowlocks": ("pgrowlocks", {"relname": "standing"}),
    "pg_buffercache": ("pg_buffercache_summary", {}),
    "pg_trgm": ("show_limit", {}),
    "dblink": ("dblink_get_connections", {}),
}


async def test_public_packages_are_steps_as_they_are(dsn, tmp_path, connection):
    await connection.execute(OWN + "insert into standing select n, n from generate_series(1, 100) n")
    available = {each["name"] for each in await connection.fetch("select name from pg_available_extensions")}
    jobs, payloads = ['[job.looks.steps]\nlooks = { sql = "looks" }'], {}
    for package, (function, arguments) in PACKAGES.items():
        if package not in available:
            continue
        await connection.execute(f"create extension {package}")
        if not await connection.fetchval("select exists (select from pg_proc where proname = $1)", function):
            continue  # an older version of it
        given = ", ".join(f'{name} = "{name}"' for name in arguments)
        jobs.append(
            f'[job.{package}]\narguments = {{ {given} }}\nretry = {{ first = "1ms", max_attempts = 1 }}\n'
            f'[job.{package}.steps]\nit = {{ sql = "{function}" }}'
        )
        payloads[package] = {name: value.strip("'") for name, value in arguments.items()}
    if not payloads:
        pytest.skip("the server has none of these extensions")
    came = {}
    async with daemon(configured(tmp_path, dsn, "\n".join(jobs), worker=QUICK, database=ONE)):
        for package, payload in payloads.items():
            found = await run(connection, package, payload)
            seen = orjson.loads((await run(connection, "looks"))["result"] or "{}").get("looks")
            if found["status"] != "completed" or seen != CLEAN:
                came[package] = (found["status"], found["errors"], seen)
    assert came == {}


@pytest.mark.parametrize(
    "refusal",
    [
        ("pg_trgm", "similarity", "takes 2 arguments"),
        ("tablefunc", "normal_rand", "takes 3 arguments"),
        ("hstore", "hstore", "not unique"),
        ("unaccent", "unaccent", "not unique"),
        ("fuzzystrmatch", "soundex", "has no argument"),
    ],
    ids=lambda refusal: refusal[0],
)
async def test_a_function_that_cannot_be_called_by_name_is_refused_at_the_start(dsn, tmp_path, connection, refusal):
    package, function, says = refusal
    if not await connection.fetchval("select exists (select from pg_available_extensions where name = $1)", package):
        pytest.skip(f"the server has no {package}")
    await connection.execute(f"create extension {package}")
    jobs = f'[job.it]\narguments = {{ a = "a" }}\n[job.it.steps]\nit = {{ sql = "{function}" }}'
    with pytest.raises(Exception, match=rf"job.it.steps.it: function {function} .*({says})"):
        async with daemon(configured(tmp_path, dsn, jobs, worker=QUICK, database=ONE)):
            pass
