"""Who may do what: applications, tenants, operators, readers, the daemon; and attacks that must fail."""

import json
from collections.abc import Awaitable, Callable

import pytest

from tests.sql.conftest import NOON, Queue, refused, verdict

Session = Callable[..., Awaitable[Queue]]

DAEMONS = (
    "claim(1, 1, '{mail}', 10)",
    "unclaim(1, 1)",
    "settle(1, '{}')",
    "settled(1, '{}')",
    "rescue(1, 1, 10)",
    "declare('[]')",
    "beat(1, 1)",
    "beat_and_look(1, 1, '{mail}')",
    "chores('{mail}')",
    "register('h', 1, '0', '{}', 1, '1s')",
    "leave(1)",
    "mark_dead(1, 1)",
    "declare_dead(1, 1)",
    "end_backends(1)",
    "stop_backend(1, now(), true)",
    "run_step(1, 1, 'a', 'f', 'select 1', '{}', 'k', '{}')",
    "step_open(1, 1, 'a', 'f', 'k')",
    "step_close(1, 1, 'a', 'f', 'k', now(), '{}', '{}')",
    "begin_steps(1, 1, '{}')",
    "progress(1, 1, 'x', '{}')",
    "sweep()",
    "sleep(1, 1)",
    "wake(1)",
    "test_ring('x')",
    "start('{}', 1, 1, now(), true)",
    "take_keys('{}')",
    "free_keys('{}', '{}')",
    "unpark('{}')",
    "meet(null, 'keep', now())",
    "holder('mail', 'k', null)",
    "set_clock()",
)

EVERYBODYS = {"now", "tenant_of", "current_tenant"}


async def claims(queue: Queue, **named: object) -> Queue:
    """Set the JWT claims of a session, as PostgREST does."""
    await queue.db.execute("select set_config('request.jwt.claims', $1, false)", json.dumps(named))
    return queue


@pytest.fixture
async def tenants(queue: Queue, session: Session) -> tuple[Queue, Queue]:
    """Sessions of the tenants t1 and t2, and declared types of every kind."""
    await queue.declare("mail", producers=["app", "tenant"])
    await queue.declare("report", producers=["app", "tenant"], unique_key="one")
    await queue.declare("swap", producers=["app", "tenant"], unique_key="one", on_conflict="replace")
    await queue.declare("strict", producers=["app", "tenant"], unique_key="one", on_conflict="refuse")
    await queue.declare("internal")
    return await claims(await session("tenant"), tenant_id="t1"), await claims(await session("tenant"), tenant_id="t2")


class TestTenants:
    async def test_enqueue_for_themselves_by_function_and_by_insert(
        self, queue: Queue, tenants: tuple[Queue, Queue]
    ) -> None:
        one, _ = tenants
        job = await one.enqueue("mail")
        other = await one.db.fetchval("insert into worker.job_queue (job_type) values ('mail') returning id")
        assert [(await queue.row(id))["tenant_id"] for id in (job, other)] == ["t1", "t1"]
        assert await one.enqueue_many("mail", {}, {"tenant_id": "t1"}) == 2

    async def test_see_only_their_own_rows(self, queue: Queue, tenants: tuple[Queue, Queue]) -> None:
        one, two = tenants
        mine, theirs = await one.enqueue("mail"), await two.enqueue("mail")
        await queue.enqueue("mail")
        await queue.take()
        await queue.db.execute(
            "insert into worker.job_step (job_id, name, status, claim)"
            " select id, 'a', 'completed', 1 from worker.job_queue"
        )
        for view in ("worker.job_queue", "worker.jobs"):
            assert await one.db.fetch(f"select id from {view}") == [(mine,)]
            assert await two.db.fetch(f"select id from {view}") == [(theirs,)]
        assert await one.db.fetch("select job_id from worker.job_step") == [(mine,)]
        assert await one.db.fetchval("select sum(running) from worker.job_stats") == 1

    @pytest.mark.parametrize("job_type", ["internal", "undeclared"])
    async def test_only_types_that_say_tenant(self, tenants: tuple[Queue, Queue], job_type: str) -> None:
        with refused("WK002", job_type):
            await tenants[0].enqueue(job_type)

    @pytest.mark.parametrize(
        ("named", "says"),
        [
            ({"unique_key": "k"}, "unique_key"),
            ({"concurrency_key": "k"}, "concurrency_key"),
            ({"max_attempts": 9}, "max_attempts"),
            ({"source": "match"}, "source"),
            ({"on_conflict": "replace"}, "on_conflict"),
            ({"tenant_id": "t1"}, "tenant_id"),
            ({"tenant_id": "t2"}, "tenant_id"),
            ({"priority": 99}, "a priority below 100"),
            ({"priority": 0}, "a priority below 100"),
        ],
    )
    async def test_what_the_declaration_rules_is_not_theirs_to_set(
        self, tenants: tuple[Queue, Queue], named: dict[str, object], says: str
    ) -> None:
        with refused("WK005", says):
            await tenants[0].enqueue("mail", **named)

    async def test_may_set_the_rest(self, queue: Queue, tenants: tuple[Queue, Queue]) -> None:
        job = await tenants[0].enqueue("mail", priority=100, scheduled_at=NOON, expires_at=NOON, correlation_id="c")
        assert (await queue.row(job))["priority"] == 100

    @pytest.mark.parametrize("job_type", ["mail", "report", "swap", "strict"])
    @pytest.mark.parametrize("whose", ["t2", None])
    async def test_another_tenants_name_in_the_payload_reaches_nothing(
        self, queue: Queue, tenants: tuple[Queue, Queue], job_type: str, whose: str | None
    ) -> None:
        """Also not the other's waiting job, whose key it would meet before any policy is asked."""
        holder = await queue.enqueue(job_type, {"secret": 1}, tenant_id=whose, scheduled_at=NOON)
        before = await queue.row(holder)
        payload = {"evil": 1} if whose is None else {"evil": 1, "tenant_id": whose}
        attacker = tenants[0] if whose else await claims(tenants[0], sub="nobody")
        for attack in (
            attacker.enqueue(job_type, payload),
            attacker.enqueue_many(job_type, payload),
            attacker.db.execute(
                "insert into worker.job_queue (job_type, payload) values ($1, $2)", job_type, json.dumps(payload)
            ),
        ):
            with refused("WK004"):
                await attack
        assert await queue.row(holder) == before
        assert (await queue.count(), await queue.count("worker.kept")) == (1, 0)

    async def test_the_setting_worker_tenant_counts_for_applications_only(
        self, queue: Queue, tenants: tuple[Queue, Queue], session: Session
    ) -> None:
        theirs = await tenants[1].enqueue("mail")
        spoof, app = await session("tenant"), await session("app")
        for each in (spoof, app):
            await each.db.execute("set worker.tenant = 't2'")
        assert await spoof.db.fetchval("select worker.current_tenant()") is None
        assert await spoof.db.fetch("select id from worker.job_queue") == []
        with refused("WK004"):
            await spoof.enqueue("mail")
        assert (await queue.row(await app.enqueue("mail")))["tenant_id"] == "t2"
        await claims(spoof, tenant_id="t1")
        assert await spoof.db.fetchval("select worker.current_tenant()") == "t1"
        assert await queue.db.fetchval("select tenant_id from worker.job_queue where id = $1", theirs) == "t2"

    @pytest.mark.parametrize(
        ("named", "tenant"),
        [
            ({"tenant_id": "t1"}, "t1"),
            ({"app_metadata": {"tenant_id": "t1"}}, "t1"),
            ({"tenant_id": "t1", "app_metadata": {"tenant_id": "t2"}}, "t1"),
            ({"sub": "x"}, None),
            ({}, None),
        ],
    )
    async def test_the_claim_is_at_the_top_or_in_app_metadata(
        self, session: Session, named: dict[str, object], tenant: str | None
    ) -> None:
        one = await claims(await session("tenant"), **named)
        assert await one.db.fetchval("select worker.current_tenant()") == tenant

    async def test_a_claim_wins_over_the_setting_for_applications_too(self, queue: Queue, session: Session) -> None:
        app = await claims(await session("app"), tenant_id="t1")
        await app.db.execute("set worker.tenant = 't2'")
        assert (await queue.row(await app.enqueue("mail")))["tenant_id"] == "t1"

    async def test_they_cancel_and_change_nothing(self, tenants: tuple[Queue, Queue]) -> None:
        one, _ = tenants
        await one.enqueue("mail")
        for statement in (
            "select worker.cancel(1)",
            "update worker.job_queue set cancel_requested_at = now()",
            "delete from worker.job_queue",
        ):
            with refused("42501"):
                await one.db.execute(statement)


class TestApplications:
    async def test_with_a_current_tenant_reach_that_tenant_only(self, queue: Queue, session: Session) -> None:
        await queue.declare("report", unique_key="one", on_conflict="replace")
        app = await session("app")
        theirs = await app.enqueue("report", {"theirs": 1}, tenant_id="t2")
        await app.db.execute("set worker.tenant = 't1'")
        for attack in ({"payload": {"tenant_id": "t2"}}, {"tenant_id": "t2"}):
            with refused("WK004"):
                await app.enqueue("report", **attack)
        with refused("WK008"):
            await app.db.execute("select worker.cancel($1)", theirs)
        assert await app.db.fetch("select id from worker.jobs") == []
        assert (await queue.row(theirs))["payload"] == '{"theirs": 1}'

    @pytest.mark.parametrize("payload", [{"tenant_id": "t2"}, {"tenant_id": ""}])
    async def test_column_and_payload_may_not_contradict_each_other(self, session: Session, payload: object) -> None:
        with refused("WK004", "tenant_id"):
            await (await session("app")).enqueue("mail", payload, tenant_id="t1")

    @pytest.mark.parametrize("who", ["app", "tenant", "operator", "reader"])
    async def test_what_is_the_daemons_is_the_daemons(self, session: Session, who: str) -> None:
        one = await session(who)
        for call in DAEMONS:
            with refused("42501", "permission denied"):
                await one.db.execute(f"select worker.{call}")


class TestOthers:
    async def test_readers_read_everything_and_write_nothing(self, queue: Queue, session: Session) -> None:
        await queue.enqueue("mail", tenant_id="t1")
        reader = await session("reader")
        for table in ("job_queue", "job_step", "job_type", "job_event", "process", "backend", "key_slot", "migration",
                      "jobs", "job_stats", "type_status"):  # fmt: skip
            await reader.db.fetch(f"select * from worker.{table}")
        assert await reader.db.fetchval("select count(*) from worker.jobs") == 1
        for statement in (
            "insert into worker.job_queue (job_type) values ('mail')",
            "update worker.job_queue set cancel_requested_at = now()",
            "delete from worker.job_queue",
            "select worker.enqueue('mail')",
            "select worker.cancel(1)",
        ):
            with refused("42501"):
                await reader.db.execute(statement)

    async def test_operators_read_everything_and_cancel(self, queue: Queue, session: Session) -> None:
        await queue.enqueue("mail", tenant_id="t1")
        operator = await session("operator")
        assert await operator.db.fetchval("select count(*) from worker.jobs") == 1
        for statement in (
            "insert into worker.job_queue (job_type) values ('mail')",
            "update worker.job_queue set status = 'completed'",
            "delete from worker.job_queue",
        ):
            with refused("42501"):
                await operator.db.execute(statement)

    async def test_the_daemon_runs_a_job_from_claim_to_end_with_its_own_role(
        self, queue: Queue, session: Session
    ) -> None:
        runner = await session("runner")
        await runner.declare("mail", concurrency_key="line")
        job = await queue.enqueue("mail")
        me = await runner.register(["mail"])
        await runner.db.execute("select worker.note_backend($1, pg_backend_pid(), now(), 'beat')", me)
        (claimed,) = await runner.take(types=["mail"])
        assert claimed["id"] == job
        assert (await runner.db.fetchrow("select * from worker.beat($1, 1)", me))["alive"]
        assert await runner.settle(verdict(claimed)) == {job: "completed"}
        await runner.sweep()
        for statement in (
            "update worker.job_queue set status = 'pending'",
            "delete from worker.process",
            "insert into worker.job_queue (job_type) values ('mail')",
        ):
            with refused("42501"):
                await runner.db.execute(statement)

    async def test_strangers_do_not_even_reach_the_schema(self, session: Session) -> None:
        nobody = await session("nobody")
        for statement in ("select worker.enqueue('mail')", "select from worker.job_queue", "select worker.now()"):
            with refused("42501", "schema worker"):
                await nobody.db.execute(statement)


class TestFunctions:
    async def test_the_public_may_execute_nothing_that_writes(self, queue: Queue) -> None:
        rows = await queue.db.fetch("""
            select p.oid::regprocedure::text, p.provolatile::text from pg_proc p
            where p.pronamespace = 'worker'::regnamespace and has_function_privilege('public', p.oid, 'execute')
        """)
        assert {name for name, _ in rows} == {"worker.now()", "worker.tenant_of(name)", "worker.current_tenant()"}
        assert "v" not in {volatility for _, volatility in rows}

    @pytest.mark.parametrize(
        ("role", "definer", "names"),
        [
            ("worker_enqueue", None, {"enqueue", "enqueue_many", "unique_key_of", "cancel", "list_jobs", *EVERYBODYS}),
            ("worker_tenant", None, {"enqueue", "enqueue_many", "unique_key_of", "list_jobs", *EVERYBODYS}),
            (
                "worker_operate",
                True,
                {
                    "run_schedule",
                    "pause_schedule",
                    "resume_schedule",
                    "pause",
                    "resume",
                    "retry",
                    "retry_failed",
                    "forget",
                    "bulk_preview",
                    "bulk_begin",
                    "bulk_page",
                    "note_submission",
                },
            ),
            ("worker_read", True, set()),
        ],
    )
    async def test_each_role_may_execute_these_and_no_others(
        self, queue: Queue, role: str, definer: bool | None, names: set[str]
    ) -> None:
        """Of operators and readers those that lend the owner's rights; the others they have run with their own."""
        rows = await queue.db.fetch(
            "select p.proname from pg_proc p where p.pronamespace = 'worker'::regnamespace"
            " and has_function_privilege($1::text, p.oid, 'execute') and p.prosecdef = coalesce($2, p.prosecdef)",
            role,
            definer,
        )
        assert {name for (name,) in rows} == names

    async def test_whatever_runs_with_the_owners_rights_has_its_search_path_pinned(self, queue: Queue) -> None:
        rows = await queue.db.fetch("""
            select p.oid::regprocedure::text, p.proconfig from pg_proc p
            where p.pronamespace = 'worker'::regnamespace and p.prosecdef
        """)
        assert len(rows) > 20
        assert [name for name, settings in rows if "search_path=pg_catalog, pg_temp" not in (settings or [])] == []

    async def test_everything_belongs_to_the_owner_who_cannot_log_in(self, queue: Queue) -> None:
        owners = await queue.db.fetch("""
            select distinct pg_get_userbyid(owner) from (
              select relowner from pg_class where relnamespace = 'worker'::regnamespace
              union all select proowner from pg_proc where pronamespace = 'worker'::regnamespace) o (owner)
        """)
        assert owners == [("worker_owner",)]
        flags = await queue.db.fetchrow(
            "select rolcanlogin, rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = 'worker_owner'"
        )
        assert tuple(flags) == (False, False, False, False)

    async def test_no_worker_role_may_create_in_the_schema(self, queue: Queue) -> None:
        rows = await queue.db.fetch("""
            select rolname from pg_roles
            where rolname like 'worker%' and rolname <> 'worker_owner' and has_schema_privilege(oid, 'worker', 'create')
        """)
        assert rows == []


SHADOWS = """
create temp table job_queue (id bigint, job_type text); create temp table job_type (name text, producers text[]);
create temp table kept (job_id bigint); create temp table clock (at timestamptz, shift interval);
create temp view asleep as select 1 as process_id;
create table evil.job_type (name text, producers text[]);
create function evil.pg_has_role(name, text, text) returns boolean language sql as 'select true';
create function evil.current_setting(text, boolean) returns text language sql as $$ select 't2' $$;
create function evil.coalesce(text, text) returns text language sql as $$ select 't2' $$;
create function evil.now() returns timestamptz language sql as $$ select '2000-01-01'::timestamptz $$;
create function evil.set_config(text, text, boolean) returns text language sql as $$ select '' $$;
create function evil.jsonb_typeof(jsonb) returns text language sql as $$ select 'object' $$;
create function evil.equal(text, text) returns boolean language plpgsql as $$
  begin raise exception 'evil ran as %', current_user; end $$;
create operator evil.= (leftarg = text, rightarg = text, function = evil.equal);
create function evil.get(jsonb, text) returns text language plpgsql as $$
  begin if current_user = 'worker_owner' then raise exception 'evil ran as owner'; end if; return 't2'; end $$;
create operator evil.->> (leftarg = jsonb, rightarg = text, function = evil.get);
create function pg_temp.pg_has_role(name, text, text) returns boolean language sql as 'select true';
set search_path = evil, pg_temp, pg_catalog, worker;
"""


class TestShadows:
    """Temporary tables, functions and operators that carry the names of what the functions use change nothing."""

    @pytest.fixture
    async def evil(self, queue: Queue, session: Session, roles: dict[str, str]) -> Callable[[str], Awaitable[Queue]]:
        await queue.declare("mail", producers=["app", "tenant"], unique_key="k:{tenant_id}")
        await queue.declare("internal")

        async def open_evil(role: str) -> Queue:
            await queue.db.execute(
                f"drop schema if exists evil cascade; create schema evil authorization {roles[role]};"
                f"grant create on schema evil to {roles[role]}"
            )
            one = await session(role)
            if role == "tenant":
                await claims(one, tenant_id="t1")
            await one.db.execute(SHADOWS)
            return one

        return open_evil

    async def test_an_application_enqueues_and_cancels_as_ever(
        self, queue: Queue, evil: Callable[[str], Awaitable[Queue]]
    ) -> None:
        app = await evil("app")
        job = await app.db.fetchval("insert into worker.job_queue (job_type) values ('internal') returning id")
        row = await queue.row(job)
        assert (row["job_type"], row["status"], row["priority"]) == ("internal", "pending", 100)
        assert abs((row["created_at"] - await queue.db.fetchval("select now()")).total_seconds()) < 3600
        await app.db.execute("update worker.job_queue set cancel_requested_at = now()")
        assert (await queue.row(job))["status"] == "cancelled"

    async def test_a_tenant_stays_the_tenant_it_is(self, queue: Queue, evil: Callable[[str], Awaitable[Queue]]) -> None:
        tenant = await evil("tenant")
        await tenant.db.execute("insert into worker.job_queue (job_type, payload) values ('mail', '{}')")
        assert await queue.db.fetch("select tenant_id, unique_key from worker.job_queue") == [("t1", "k:t1")]
        assert await tenant.db.fetchval("select worker.current_tenant()") == "t1"
        with refused("WK002"):
            await tenant.db.execute("insert into worker.job_queue (job_type) values ('internal')")
        with refused("WK004"):
            await tenant.db.execute(
                "insert into worker.job_queue (job_type, payload) values ('mail', '{\"tenant_id\": \"t2\"}')"
            )
