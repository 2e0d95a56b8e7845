"""The doctor at healthy installations: it finds nothing, changes nothing, holds nothing, and never takes long."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.check.ward import JOBS, Ward, bad
from tests.cli.support import Cli
from tests.heart import configured, daemon, until
from worker.check import Finding, examine
from worker.check.finding import ok
from worker.check.patient import Patient

ALL = """
    select c.oid::regclass::text
    from pg_class c
    where c.relkind in ('r', 'S') and c.relnamespace in ('worker'::regnamespace, 'public'::regnamespace)
      or c.oid in ('pg_proc'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass, 'pg_auth_members'::regclass,
                   'pg_db_role_setting'::regclass, 'pg_index'::regclass, 'pg_attribute'::regclass)
"""
GONE = "select not exists (select from pg_stat_activity where application_name like 'worker %' and datname = $1)"


class TestHealthy:
    async def test_as_the_login_with_the_least_rights(self, ward: Ward) -> None:
        findings = await ward.look()
        assert bad(findings) == []
        assert {each.subject for each in findings if each.level == "ok"} == {
            "configuration", "database", "pooler", "rights", "schema", "functions", "schedules", "connections",
            "notifications",
        }  # fmt: skip

    async def test_as_a_superuser_who_owns_it_all(self, ward: Ward) -> None:
        ward.login = "postgres"
        assert [each.code for each in bad(await ward.look())] == ["rights.superuser"]

    async def test_of_a_later_release_that_serves_this_one(self, ward: Ward) -> None:
        await ward.execute(
            "create or replace function worker.edition(out edition integer, out serves integer) language sql immutable"
            " parallel safe as $$ select 1000, 1 $$",
            "drop function worker.last_results(text[])",
        )
        findings = await ward.look()
        assert bad(findings) == []
        assert [each.level for each in findings if each.subject == "schema"] == ["info"]

    async def test_while_a_daemon_works(self, ward: Ward) -> None:
        address = ward.dsn.replace("postgres@", f"{ward.login}@", 1)
        async with daemon(configured(ward.folder, address, JOBS)):
            job = await ward.connection.fetchval("select worker.enqueue('fine')")
            await until(ward.connection, "select status = 'completed' from worker.job_queue where id = $1", job)
            ward.configure()
            assert bad(await ward.look()) == []


class TestLeavesAllAsItWas:
    async def everything(self, ward: Ward) -> dict[str, list[str]]:
        """Every row of every table that could have changed."""
        names = [name for (name,) in await ward.connection.fetch(ALL)]
        return {
            name: sorted(map(str, await ward.connection.fetch(f"select row(t.*)::text from {name} t")))
            for name in names
        }

    async def test_it_changes_nothing(self, ward: Ward) -> None:
        await ward.execute("select worker.enqueue('fine')", "select worker.enqueue('nobody_knows_this')")
        before = await self.everything(ward)
        assert [each.code for each in bad(await ward.look())] == ["types.unserved"]
        assert await self.everything(ward) == before

    async def test_it_holds_nothing(self, ward: Ward) -> None:
        await ward.look()
        assert await until(ward.connection, GONE, ward.name)
        assert await ward.connection.fetchval("select count(*) from pg_locks where pid <> pg_backend_pid()"
                                              " and relation::regclass::text like 'worker.%'") == 0  # fmt: skip


class TestNeverForLong:
    async def test_a_queue_that_somebody_holds_locked(self, ward: Ward) -> None:
        holder = await ward.other()
        await holder.execute("begin; lock table worker.job_queue, worker.migration in access exclusive mode")
        found = bad(await ward.look())
        assert {each.code for each in found} == {"activity.locked", "schema.unseen"}
        (named,) = [each for each in found if each.code == "activity.locked"]
        assert named.cure == f"select pg_terminate_backend({holder.get_server_pid()});"

    async def test_a_server_that_does_not_answer_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker.check.visit.SECONDS", 0.2)
        async with _deaf() as port:
            (found,) = await examine(configured(tmp_path, f"postgresql://u:geheim@127.0.0.1:{port}/x", JOBS))
        assert (found.code, "geheim" in str(found)) == ("database.unreachable", False)

    async def test_a_server_that_falls_silent_in_the_middle(self, ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
        stopped: list[int] = []

        async def stop(patient: Patient) -> list[Finding]:
            stopped.append(await patient.connection.fetchval("select pg_backend_pid()"))
            os.kill(stopped[0], signal.SIGSTOP)
            return [ok("clock", str(await patient.connection.fetchval("select 1")))]

        monkeypatch.setattr("worker.check.visit.SUBJECTS", (("clock", stop), ("never", stop)))
        monkeypatch.setattr("worker.check.visit.SECONDS", 2.0)
        try:
            async with asyncio.timeout(20):
                found = await ward.look()
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert [(each.code, "clock" in each.said) for each in bad(found)] == [("database.silent", True)]
        assert len(stopped) == 1


@asynccontextmanager
async def _deaf() -> AsyncIterator[int]:
    """Takes connections and says nothing."""
    over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()


async def test_a_limit_of_the_database_counts(ward: Ward) -> None:
    await ward.execute(f"alter database {ward.name} connection limit 5")
    (found,) = bad(await ward.look())
    assert (found.code, "gives 5" in found.said) == ("connections.most", True)


async def test_notifications_that_do_not_arrive(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.check.notify.SECONDS", 0.05)
    monkeypatch.setattr("asyncpg.Connection.add_listener", lambda *given: _nothing())
    (found,) = bad(await ward.look())
    assert (found.code, "direct_url" in str(found.cure)) == ("notifications.silent", True)


async def _nothing() -> None:
    pass


async def test_an_address_of_a_cloud_s_metadata_is_not_called(ward: Ward) -> None:
    ward.configure(f'{JOBS}[job.hook]\nhttp = "http://169.254.169.254/latest"\n')
    await ward.declare()
    (found,) = bad(await ward.look())
    assert (found.code, "allow" in str(found.cure)) == ("endpoints.refused", True)


FOR_EACH = (
    ("drop function clubs()", "there is no function clubs"),
    ("drop function clubs(); create function clubs() returns integer language sql as 'select 1'",
     "clubs is not set-returning"),
    ("drop function clubs(); create function clubs(n integer) returns setof integer language sql as 'select 1'",
     "clubs cannot be called without arguments"),
    ("revoke all on function clubs() from public", "watchman may not execute clubs"),
)  # fmt: skip


@pytest.mark.parametrize(("broken", "said"), FOR_EACH)
async def test_for_each(ward: Ward, broken: str, said: str) -> None:
    await ward.execute(broken)
    (found,) = bad(await ward.look())
    assert (found.code, found.said) == ("schedules.for_each", f"schedule.nightly.for_each: {said}")


class TestSystems:
    SYSTEM = """
        create schema shop; grant usage on schema shop to worker_run;
        create function shop.check() returns table (level text, said text, cure text) language sql stable as
          $$ values ('ok', 'open', null), ('warning', 'no bread', 'bake') $$;
    """

    async def test_a_function_check_of_a_schema_is_asked(self, ward: Ward) -> None:
        await ward.execute(self.SYSTEM)
        found = [each for each in await ward.look() if each.subject == "shop"]
        assert [(each.level, each.said, each.cure) for each in found] == [
            ("ok", "open", None), ("warning", "no bread", "bake"),
        ]  # fmt: skip

    async def test_one_that_writes_is_stopped(self, ward: Ward) -> None:
        await ward.execute(
            self.SYSTEM,
            "create table shop.sold (n integer); grant all on shop.sold to public",
            "create or replace function shop.check() returns table (level text, said text, cure text)"
            " language sql as $$ insert into shop.sold values (1); values ('ok', 'open', null) $$",
        )
        assert [each.code for each in bad(await ward.look())] == ["systems.failing"]

    @pytest.mark.parametrize("row", ["'error', 'no bread', 'bake'", "'ok', null, null", "null, 'no bread', null"])
    async def test_one_that_says_what_is_no_finding_is_told(self, ward: Ward, row: str) -> None:
        await ward.execute(
            self.SYSTEM,
            "create or replace function shop.check() returns table (level text, said text, cure text)"
            f" language sql as $$ values ({row}) $$",
        )
        (found,) = bad(await ward.look())
        assert (found.code, "shop.check()" in found.said) == ("systems.failing", True)

    async def test_one_of_a_stranger_is_not(self, ward: Ward) -> None:
        await ward.execute(self.SYSTEM, "alter function shop.check() owner to authenticated")
        assert [each for each in await ward.look() if each.subject == "shop"] == []


class TestVerb:
    async def test_healthy(self, ward: Ward, dsn: str) -> None:
        cli = Cli(ward.folder, dsn)
        await cli("migrate")
        answer = await cli("check", "--json")
        assert (answer.code, answer.value["ok"]) == (0, True), answer.out
        assert set(answer.value["findings"][0]) == {"subject", "code", "level", "said", "cure"}
        assert "✓ notifications: arrive" in (await cli("check")).out

    async def test_a_fault_is_a_no_with_its_cure(
        self, tmp_path: Path, dsn: str, connection: asyncpg.Connection
    ) -> None:
        await connection.execute("drop schema worker cascade")
        answer = await Cli(tmp_path, dsn)("check")
        assert answer.code == 1
        assert "✗ schema.old: the database has no schema worker" in answer.out
        assert "  cure: run `worker migrate`" in answer.out

    async def test_what_its_cure_would_run_can_be_printed(self, ward: Ward, dsn: str) -> None:
        cli = Cli(ward.folder, dsn)
        printed, again = await cli("migrate", "--print"), await cli("migrate", "--print", "--again")
        assert ["-- sql/functions/60_settle.sql" in each.out for each in (printed, again)] == [False, True]

    async def test_config_only_needs_no_database(self, tmp_path: Path) -> None:
        cli = Cli(tmp_path, "postgresql://localhost:1/nothing")
        sound, reached = await cli("check", "--config-only", "--json"), await cli("check", "--json")
        assert (sound.code, reached.code) == (0, 1)
        cli.config.write_text("environment = 1\n", encoding="utf-8")
        broken = await cli("check", "--config-only", "--json")
        assert (broken.code, broken.value["ok"]) == (1, False)
