"""Is it installed whole, who may see and write what, and does it go without a trace on what people entered?"""

from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from tests.cli.support import Cli
from tests.heart import configured, declare, enqueue
from tests.jobs.crews import DAY, JOBS, START, begin, begun, install, jobs, person
from tests.support import ROOT
from worker import migrations
from worker.check import Finding, examine
from worker.config import Config
from worker.migrations import sql_root

ENTERED = (
    "auto_syncs", "auto_sync_options", "auto_sync_responses", "auto_sync_messages", "profiles", "contacts", "crews",
    "crew_members", "message_thread", "conversation_state",
)  # fmt: skip
READABLE = ("auto_syncs", "auto_sync_options", "auto_sync_responses", "auto_sync_messages", "outbox", "contacts")


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await install(connection)
    return connection


@pytest.fixture
async def config(db: asyncpg.Connection, dsn: str, tmp_path: Path) -> Config:
    assert (await Cli(tmp_path, dsn)("migrate")).code == 0
    return configured(tmp_path, dsn, JOBS)


async def told(config: Config) -> list[Finding]:
    return [each for each in await examine(config) if each.subject == "auto_sync"]


class TestCheck:
    async def test_whole(self, config: Config) -> None:
        found = await told(config)
        assert [(each.level, each.said) for each in found] == [
            ("ok", "installed: tables, triggers, types, index and rights are there"),
            ("info", "the timings of production are in force: reminder after 24:00:00, pause after 48:00:00"),
        ]

    @pytest.mark.parametrize(
        ("broken", "said", "cure"),
        [
            ("drop trigger on_auto_sync_created on auto_sync.auto_syncs", "on_auto_sync_created is not there", "apply"),
            ("alter table auto_sync.auto_syncs disable trigger on_auto_sync_ended", "on_auto_sync_ended is disabled",
             "alter table auto_sync.auto_syncs enable trigger on_auto_sync_ended"),
            ("delete from worker.job_type where name = 'reminder_24h'", "reminder_24h is not declared", "declare it"),
            ("update worker.job_type set unique_while = 'waiting' where name = 'auto_end_check'",
             "auto_end_check is declared without unique_key", "declare it"),
            ("alter table auto_sync.outbox disable row level security", "row-level security of auto_sync.outbox is off",
             "alter table auto_sync.outbox enable row level security"),
            ("drop index worker.job_queue_held", "there is no unique index", "worker migrate"),
            ("update auto_sync.timing set in_force = false", "no timings are in force", "use_profile"),
        ],
    )  # fmt: skip
    async def test_each_fault_is_named_with_its_cure(
        self, config: Config, db: asyncpg.Connection, broken: str, said: str, cure: str
    ) -> None:
        await db.execute(broken)
        faults = [each for each in await told(config) if each.level == "fault"]
        assert [each for each in faults if said in each.said and cure in str(each.cure)] == faults != []

    async def test_an_owner_who_may_not_enqueue(self, config: Config, db: asyncpg.Connection) -> None:
        await db.execute("create role a_nobody; alter function auto_sync.schedule_first_reminder() owner to a_nobody")
        try:
            said = {each.said for each in await told(config) if each.level == "fault"}
        finally:
            await db.execute("reassign owned by a_nobody to current_user; drop owned by a_nobody; drop role a_nobody")
        assert said == {
            f"a_nobody, who owns the functions, is no member of worker_{name}" for name in ("enqueue", "operate")
        }

    async def test_what_waits_for_a_person(self, config: Config, db: asyncpg.Connection) -> None:
        sync = await begun(db)
        await db.execute("select * from auto_sync.begin_reminder($1, 0)", sync)
        await db.execute(
            "update auto_sync.outbox set status = 'unknown' where id = (select min(id) from auto_sync.outbox)"
        )
        warned = [each.said for each in await told(config) if each.level == "warning"]
        assert warned == ["1 messages may or may not have arrived", "1 jobs are more than 5 minutes late"]
        await db.execute("select worker.cancel(id) from worker.jobs")
        waits = [each for each in await told(config) if each.level == "warning"][1]
        assert waits.said == "2 messages wait, and no job is there to send them"
        command, _, question = str(waits.cure).partition(": ")
        assert command == "worker retry ID"
        ids = {job_type: id_ for id_, job_type in await db.fetch(question)}
        assert set(ids) == {"reminder_24h", "pause_check_48h"}
        await db.execute("select worker.retry($1)", ids["reminder_24h"])
        assert "2 messages wait" not in str(await told(config))

    async def test_where_it_is_not_installed_nothing_is_said_of_it(
        self, connection: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        assert await told(configured(tmp_path, dsn, JOBS)) == []

    async def test_a_function_that_a_stranger_made_is_not_called(
        self, connection: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        await connection.execute(
            "create schema auto_sync; create table auto_sync.called (); create role a_stranger;"
            " create function auto_sync.check(out level text, out said text, out cure text) returns setof record"
            " language plpgsql as $$ begin raise exception 'called'; end $$;"
            " alter function auto_sync.check() owner to a_stranger"
        )
        try:
            assert await told(configured(tmp_path, dsn, JOBS)) == []
        finally:
            await connection.execute("drop owned by a_stranger; drop role a_stranger")


class TestRights:
    async def test_a_user_reads_the_jobs_of_own_syncs(self, db: asyncpg.Connection) -> None:
        me, other = await person(db, "Me"), await person(db, "Other")
        mine, theirs = await begin(db, organizer=me), await begin(db, organizer=other)
        assert await self.sees(db, me) == {mine}
        assert await self.sees(db, other) == {theirs}
        assert await self.sees(db, None) == set()
        await self.act_as(db, "worker_enqueue")
        assert {row[0] for row in await db.fetch("select sync_id from auto_sync.job_queue")} == {mine, theirs}

    @pytest.mark.parametrize("table", READABLE)
    async def test_and_what_belongs_to_them(self, db: asyncpg.Connection, table: str) -> None:
        me = await person(db, "Me")
        await self.filled(db, me)
        await self.filled(db, await person(db, "Other"))
        in_all = await db.fetchval(f"select count(*) from auto_sync.{table}")
        await self.act_as(db, "worker_tenant", me)
        assert await db.fetchval(f"select count(*) from auto_sync.{table}") == in_all // 2 > 0

    @pytest.mark.parametrize("role", ["worker_tenant", "worker_enqueue", "worker_read", "worker_run", "worker_operate"])
    @pytest.mark.parametrize("table", ["job_queue", "outbox", "cycles"])
    async def test_only_the_worker_s_functions_write(self, db: asyncpg.Connection, role: str, table: str) -> None:
        await self.filled(db, await person(db))
        await self.act_as(db, role)
        column = "scheduled_at = now()" if table == "job_queue" else "cycle = 7"
        for statement in (f"update auto_sync.{table} set {column}", f"delete from auto_sync.{table}"):
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)):
                async with db.transaction():
                    await db.execute(statement)

    @pytest.mark.parametrize("role", ["worker_tenant", "worker_enqueue", "worker_read"])
    async def test_and_nobody_but_the_daemon_calls_them(self, db: asyncpg.Connection, role: str) -> None:
        sync = await begin(db)
        await self.act_as(db, role)
        for call in ("begin_reminder($1, 0)", "pause($1, 1)", "end_check($1, 1)", "end_jobs($1, 'x')", "mend()"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with db.transaction():
                    await db.execute(f"select auto_sync.{call}", *[sync] if "$1" in call else [])

    async def test_a_daemon_with_the_rights_of_worker_run_is_enough(self, db: asyncpg.Connection) -> None:
        sync = await begun(db)
        await self.act_as(db, "worker_run")
        assert (await db.fetchrow("select * from auto_sync.begin_reminder($1, 1)", sync))["action"] == "send"
        for call in ("next_message($1, 'reminder', 1, 1, 1)", "in_doubt($1, 'reminder', 1, 1)", "end_check($1, 1)",
                     "pause($1, 1)", "next_due($1, 'pause_check_48h')", "conclude_reminder($1, 1)"):  # fmt: skip
            await db.fetch(f"select * from auto_sync.{call}", sync)
        assert await db.fetchval("select auto_sync.note_message(1, 'sent', 1)") is False
        assert await db.fetchval("select auto_sync.mend()") == 0

    async def test_an_owner_who_is_no_superuser_is_enough(self, connection: asyncpg.Connection) -> None:
        name = await connection.fetchval("select current_database()")
        await connection.execute(
            "create role an_owner in role worker_enqueue, worker_operate;"
            f" grant create on database {name} to an_owner; set role an_owner"
        )
        try:
            await migrations.install(connection, "auto_sync")
            await connection.execute("reset role")
            await install(connection)  # declares the types, and applies the files once more
            assert await connection.fetch("select said from auto_sync.check() where level = 'fault'") == []
            owner = "select proowner::regrole::text from pg_proc where proname = 'end_with_sync'"
            assert await connection.fetchval(owner) == "an_owner"
            await self.act_as(connection, "worker_enqueue")
            sync = await begun(connection)
            await self.act_as(connection, "worker_run")
            await connection.execute("select * from auto_sync.begin_reminder($1, 1)", sync)
            await connection.execute("reset role")
            assert {job["status"] for job in await jobs(connection, sync)} == {"pending"}
            await self.act_as(connection, "worker_enqueue")
            await connection.execute("update auto_sync.auto_syncs set status = 'stopped'")
            await connection.execute("reset role")
            assert {job["status"] for job in await jobs(connection, sync)} == {"cancelled"}
        finally:
            await connection.execute(
                "reset role; drop schema auto_sync cascade; drop owned by an_owner; drop role an_owner"
            )

    async def test_an_application_that_may_only_enter_a_sync_has_its_reminder(self, db: asyncpg.Connection) -> None:
        await self.act_as(db, "worker_enqueue")
        sync = await begin(db)
        await db.execute("reset role")
        assert {job["job_type"] for job in await jobs(db, sync)} == {"reminder_24h", "auto_end_check"}

    async def test_every_function_has_a_comment_and_definers_a_pinned_path(self, db: asyncpg.Connection) -> None:
        rows = await db.fetch(
            "select proname, obj_description(oid, 'pg_proc') as said, prosecdef, proconfig::text as path"
            " from pg_proc where pronamespace = 'auto_sync'::regnamespace"
        )
        assert [row["proname"] for row in rows if not row["said"]] == []
        assert [row["proname"] for row in rows if "search_path=pg_catalog" not in str(row["path"])] == []
        relations = (
            "select relname from pg_class where relnamespace = 'auto_sync'::regnamespace and relkind in ('r', 'v')"
        )
        assert await db.fetch(f"{relations} and obj_description(oid, 'pg_class') is null") == []

    async def act_as(self, db: asyncpg.Connection, role: str, user: UUID | None = None) -> None:
        await db.execute(f"reset role; set role {role}")
        claims = f'{{"sub": "{user}"}}' if user else ""
        await db.execute("select set_config('request.jwt.claims', $1, false)", claims)

    async def sees(self, db: asyncpg.Connection, user: UUID | None) -> set[UUID]:
        await self.act_as(db, "worker_tenant", user)
        return {row[0] for row in await db.fetch("select sync_id from auto_sync.job_queue")}

    async def filled(self, db: asyncpg.Connection, organizer: UUID) -> None:
        sync = await begun(db, organizer=organizer)
        await db.execute("select * from auto_sync.begin_reminder($1, 0)", sync)
        await db.execute(
            "insert into auto_sync.auto_sync_messages (auto_sync_id, contact_id, message_type)"
            " select auto_sync_id, contact_id, 'initial' from auto_sync.outbox where auto_sync_id = $1", sync,
        )  # fmt: skip
        await db.execute(
            "insert into auto_sync.auto_sync_responses (auto_sync_id, contact_id, response_type)"
            " select auto_sync_id, contact_id, 'available' from auto_sync.outbox where auto_sync_id = $1", sync,
        )  # fmt: skip


class TestOldWords:
    async def test_statuses(self, db: asyncpg.Connection) -> None:
        await db.execute("select worker.set_clock($1)", START)
        sync = await begin(db)
        await enqueue(db, "pause_check_48h", {"sync_id": str(sync)}, scheduled_at=START + DAY)
        await db.execute("select worker.cancel(id, 'by hand') from worker.jobs where job_type = 'auto_end_check'")
        await db.execute("update worker.job_queue set status = 'running', queued = false, claim = 1, started_at = $1"
                         " where job_type = 'reminder_24h'", START)  # fmt: skip
        rows = await db.fetch("select * from auto_sync.job_queue where sync_id = $1 order by job_type", sync)
        assert [(row["job_type"], row["status"], row["error_message"]) for row in rows] == [
            ("auto_end_check", "skipped", "by hand"),
            ("pause_check_48h", "pending", None),
            ("reminder_24h", "processing", None),
        ]

    async def test_the_first_system_s_own_statements_run(self, db: asyncpg.Connection) -> None:
        """An insert and the question after it, as its manual has them."""
        organizer = await person(db)
        crew = await db.fetchval(
            "insert into auto_sync.crews (organizer_id, name) values ($1, 'c') returning id", organizer
        )
        await db.execute("set search_path = auto_sync, public")
        sync = await db.fetchval(
            "insert into auto_syncs (organizer_id, crew_id, event_name, status, response_goal, timezone, started_at)"
            " values ($1, $2, 'Test Event', 'running', 'everyone', 'America/Los_Angeles', now()) returning id",
            organizer, crew,
        )  # fmt: skip
        (job,) = await db.fetch("select * from job_queue where sync_id = $1", sync)
        assert (job["job_type"], job["status"]) == ("reminder_24h", "pending")


class TestUninstall:
    async def test_it_leaves_what_people_entered_untouched(self, db: asyncpg.Connection) -> None:
        sync = await begun(db)
        await db.execute("select * from auto_sync.begin_reminder($1, 0)", sync)
        before = {table: await self.digest(db, table) for table in ENTERED}
        await db.execute((sql_root() / "optional" / "auto_sync_uninstall.sql").read_text(encoding="utf-8"))
        assert {table: await self.digest(db, table) for table in ENTERED} == before
        assert {job["status"] for job in await jobs(db, sync)} == {"cancelled"}
        left = (
            "select count(*) from pg_trigger t where t.tgrelid = 'auto_sync.auto_syncs'::regclass and not tgisinternal"
        )
        assert await db.fetchval(left) == 0
        await db.execute("update auto_sync.auto_syncs set status = 'completed'")
        await install(db)  # and it may come back
        assert await db.fetchval("select auto_sync.mend()") == 0

    async def digest(self, db: asyncpg.Connection, table: str) -> str:
        asked = f"select md5(string_agg(t::text || ctid || xmin, '|' order by ctid)) from auto_sync.{table} t"
        return str(await db.fetchval(asked))


async def test_the_test_script_of_the_first_system_has_nothing_that_check_has_not(db: asyncpg.Connection) -> None:
    """The table, its index, its trigger; what called it each minute is the daemon now."""
    page = (ROOT / "docs" / "systems" / "auto-sync.md").read_text(encoding="utf-8")
    for name in ("on_auto_sync_created", "schedule_first_reminder", "job_queue_held"):
        assert name in page
    assert await db.fetchval("select to_regclass('auto_sync.job_queue') is not null")
    await declare(db, {"name": "reminder_24h"})
    assert await db.fetchval("select count(*) from auto_sync.check_types()") == 1
