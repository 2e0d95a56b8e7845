"""Migrations: from nothing to this release, once, by whoever is first; and what is refused."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support import ROOT
from worker import migrating, migrations
from worker.embedded import Embedded
from worker.errors import SchemaBusy, SchemaError
from worker.migrations import files, install, migrate, verify


@pytest.fixture
async def empty(cluster: Embedded, maintenance: asyncpg.Connection) -> AsyncIterator[str]:
    """The address of a database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name}")
    yield cluster.dsn(name)
    await maintenance.execute(f"drop database {name} with (force)")


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of sql/ that a test may change."""
    copy = tmp_path / "sql"
    shutil.copytree(migrations.sql_root(), copy)
    monkeypatch.setattr(migrations, "sql_root", lambda: copy)
    return copy


def change(path: Path, text: str = "\n-- changed\n") -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


async def names(connection: asyncpg.Connection) -> list[str]:
    return [name for (name,) in await connection.fetch("select name from worker.migration order by name")]


class TestMigrate:
    async def test_from_nothing_applies_every_file_in_order_and_records_it(self, empty: str) -> None:
        told: list[str] = []
        wanted = [file.name for file in (*files("migrations"), *files("functions"))]
        assert await migrate(empty, told.append) == wanted
        assert told == [*(file.name for file in files("migrations")), "functions"]
        connection = await asyncpg.connect(empty)
        try:
            assert await names(connection) == sorted(wanted)
            await verify(connection)
            assert await connection.fetchval("select worker.enqueue('anything')") == 1
        finally:
            await connection.close()

    async def test_twice_changes_nothing(self, dsn: str, connection: asyncpg.Connection) -> None:
        before = await connection.fetch("select * from worker.migration order by name")
        assert await migrate(dsn) == []
        assert await connection.fetch("select * from worker.migration order by name") == before

    async def test_four_at_once_apply_once(self, empty: str) -> None:
        answers = await asyncio.gather(*(migrate(empty) for _ in range(4)))
        assert sorted(map(bool, answers)) == [False, False, False, True]

    async def test_a_changed_function_replaces_it(self, dsn: str, connection: asyncpg.Connection, sql: Path) -> None:
        change(
            sql / "functions" / "10_now.sql",
            "create function worker.extra() returns integer language sql return 7;"
            "comment on function worker.extra() is 'x';",
        )
        assert await migrate(dsn) == ["functions/10_now.sql"]
        assert await connection.fetchval("select worker.extra()") == 7
        assert not await connection.fetchval("select has_function_privilege('public', 'worker.extra()', 'execute')")
        await verify(connection)

    async def test_jobs_and_pauses_survive_a_new_release(
        self, dsn: str, connection: asyncpg.Connection, sql: Path
    ) -> None:
        await connection.execute("insert into worker.job_type (name, paused) values ('mail', true)")
        job = await connection.fetchval("select worker.enqueue('mail')")
        (sql / "migrations" / "9000_more.sql").write_text("alter table worker.job_queue add column more text;\n")
        assert await migrate(dsn) == ["migrations/9000_more.sql"]
        assert await connection.fetchrow("select id, more from worker.job_queue") == (job, None)
        assert await connection.fetchval("select paused from worker.job_type") is True

    async def test_waits_for_another_that_is_at_it_but_not_for_ever(
        self, dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await connection.execute("select pg_advisory_lock($1)", migrating.LOCK)
        monkeypatch.setattr(migrating, "LOCK_SECONDS", 0.2)
        pid, login = connection.get_server_pid(), await connection.fetchval("select current_user")
        expected = rf"pid {pid} of the server, user {login}, .*; let it end, .*`select pg_terminate_backend\({pid}\);`"
        with pytest.raises(SchemaBusy, match=expected):
            await migrate(dsn)
        await connection.execute("select pg_advisory_unlock($1)", migrating.LOCK)
        assert await migrate(dsn) == []

    async def test_a_queue_that_stays_locked_is_told(
        self, dsn: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.2)
        async with connection.transaction():
            await connection.execute("lock table worker.job_queue in access share mode")
            with pytest.raises(SchemaBusy, match=r"open transaction keeps worker\.job_queue locked"):
                await migrate(dsn, again=True)
        assert "functions/05_edition.sql" in await migrate(dsn, again=True)

    async def test_leaves_no_lock_and_no_session_behind(
        self, empty: str, maintenance: asyncpg.Connection, sql: Path
    ) -> None:
        (sql / "migrations" / "0003_bad.sql").write_text("select 1 / 0;\n")
        with pytest.raises(SchemaError):
            await migrate(empty)
        assert await maintenance.fetchval("select count(*) from pg_locks where locktype = 'advisory'") == 0
        sessions = (
            "select count(*) from pg_stat_activity where datname like 'empty%' and backend_type = 'client backend'"
        )
        async with asyncio.timeout(10):
            while await maintenance.fetchval(sessions):
                pass


class TestEditions:
    """A schema of the next release, and this release on it."""

    @pytest.fixture
    async def next_one(
        self, dsn: str, sql: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[int], Awaitable[Callable[[], None]]]:
        """Migrates to a next edition that serves those from a given one on; what it answers with brings ours back."""
        (sql / "migrations" / "9000_more.sql").write_text("alter table worker.job_queue add column more text;\n")

        async def migrated(serves: int) -> Callable[[], None]:
            path = sql / "functions" / "05_edition.sql"
            text = path.read_text(encoding="utf-8")
            now = migrations.ours()
            assert f"select {now.number}, {now.serves}" in text
            path.write_text(text.replace(f"select {now.number}, {now.serves}", f"select {now.number + 1}, {serves}"))
            assert await migrate(dsn) == ["migrations/9000_more.sql", "functions/05_edition.sql"]
            return lambda: monkeypatch.setattr(migrations, "sql_root", ROOT.joinpath("sql").resolve)

        return migrated

    async def test_a_later_schema_that_serves_us_is_good_and_stays_as_it_is(
        self, dsn: str, connection: asyncpg.Connection, next_one: Any
    ) -> None:
        (await next_one(migrations.ours().number))()
        before = await connection.fetch("select * from worker.migration order by name")
        await verify(connection)
        assert await migrations.later(connection)
        assert await migrations.pending(connection) == []
        assert await migrate(dsn) == []
        assert await connection.fetch("select * from worker.migration order by name") == before

    async def test_one_that_does_not_is_refused_and_says_which_it_serves(
        self, dsn: str, connection: asyncpg.Connection, next_one: Any
    ) -> None:
        number = migrations.ours().number
        (await next_one(number + 1))()
        expected = (
            rf"too new: it is of edition {number + 1} and serves releases from edition {number + 1} on;"
            rf" this one is of edition {number}$"
        )
        for refused in (verify(connection), migrate(dsn), migrations.pending(connection)):
            with pytest.raises(SchemaError, match=expected):
                await refused

    async def test_a_schema_without_one_is_older_than_all(self, dsn: str, connection: asyncpg.Connection) -> None:
        await connection.execute("drop function worker.edition()")
        await connection.execute("update worker.migration set digest = 'x' where name = 'functions/05_edition.sql'")
        assert not await migrations.later(connection)
        with pytest.raises(SchemaError, match=r"too old: functions/05_edition\.sql is not applied"):
            await verify(connection)
        assert await migrate(dsn) == ["functions/05_edition.sql"]
        assert tuple(await connection.fetchrow("select * from worker.edition()")) == migrations.ours()

    async def test_who_starts_while_somebody_migrates_waits_for_the_end(
        self, connection: asyncpg.Connection, maintenance: asyncpg.Connection, dsn: str
    ) -> None:
        """Between a numbered file and the functions the schema is nobody's."""
        other = await asyncpg.connect(dsn)
        await other.execute("select pg_advisory_lock($1)", migrating.LOCK)
        assert await migrating.under_way(connection)
        await other.execute("insert into worker.migration (name, digest) values ('migrations/9000_more.sql', 'x')")
        with pytest.raises(SchemaError, match="too new"):
            await verify(connection)  # without patience
        with pytest.raises(SchemaError, match="too new"):
            await verify(connection, 0.05)
        waiting = asyncio.create_task(verify(connection, 20))
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
        await other.execute("delete from worker.migration where name = 'migrations/9000_more.sql'")
        await other.close()
        await waiting
        assert not await migrating.under_way(connection)


class TestRefusals:
    async def test_an_edited_numbered_file(self, dsn: str, connection: asyncpg.Connection, sql: Path) -> None:
        change(sql / "migrations" / "0002_queue.sql")
        expected = r"migrations/0002_queue\.sql was edited after it was applied; numbered files never change"
        with pytest.raises(SchemaError, match=expected):
            await migrate(dsn)
        with pytest.raises(SchemaError, match=expected):
            await verify(connection)

    async def test_a_newer_schema(self, dsn: str, connection: asyncpg.Connection) -> None:
        for name in ("migrations/9998_a.sql", "migrations/9999_b.sql"):
            await connection.execute("insert into worker.migration (name, digest) values ($1, 'x')", name)
        expected = r"the schema is too new: migrations/9999_b\.sql is applied, which this release does not know"
        with pytest.raises(SchemaError, match=expected):
            await migrate(dsn)
        with pytest.raises(SchemaError, match=expected):
            await verify(connection)

    async def test_a_function_file_that_this_release_dropped_is_no_newer_schema(
        self, dsn: str, connection: asyncpg.Connection
    ) -> None:
        await connection.execute("insert into worker.migration (name, digest) values ('functions/00_old.sql', 'x')")
        await verify(connection)
        assert await migrate(dsn) == []

    @pytest.mark.parametrize(
        ("undo", "missing"),
        [
            ("delete from worker.migration where name = 'migrations/0002_queue.sql'", r"migrations/0002_queue\.sql"),
            ("update worker.migration set digest = 'old' where name like 'functions/5%'", r"functions/50_claim\.sql"),
        ],
    )
    async def test_an_older_schema_is_told_what_to_do(
        self, connection: asyncpg.Connection, undo: str, missing: str
    ) -> None:
        await connection.execute(undo)
        expected = rf"the schema is too old: {missing} is not applied; run `worker migrate`"
        with pytest.raises(SchemaError, match=expected):
            await verify(connection)

    async def test_an_absent_schema_is_told_what_to_do(self, connection: asyncpg.Connection) -> None:
        await connection.execute("drop schema worker cascade")
        with pytest.raises(SchemaError, match="the database has no schema worker; run `worker migrate`"):
            await verify(connection)


class TestFailures:
    async def test_of_a_numbered_file_name_file_line_and_sqlstate_and_keep_what_came_before(
        self, empty: str, sql: Path
    ) -> None:
        bad = sql / "migrations" / "0003_bad.sql"
        bad.write_text("create table public.half ();\n\nselect missing\nfrom pg_class;\n")
        with pytest.raises(SchemaError, match=r'^sql/migrations/0003_bad\.sql:3: 42703 column "missing" does not'):
            await migrate(empty)
        connection = await asyncpg.connect(empty)
        try:
            assert await names(connection) == ["migrations/0001_roles.sql", "migrations/0002_queue.sql"]
            assert await connection.fetchval("select to_regclass('public.half')") is None
        finally:
            await connection.close()
        bad.write_text("create table public.whole ();\n")
        assert (await migrate(empty))[0] == "migrations/0003_bad.sql"

    async def test_without_a_place_name_the_file(self, empty: str, sql: Path) -> None:
        bad = "do $$ begin raise exception 'no luck' using errcode = 'P0042'; end $$"
        (sql / "migrations" / "0003_bad.sql").write_text(bad)
        with pytest.raises(SchemaError, match=r"^sql/migrations/0003_bad\.sql: P0042 no luck$"):
            await migrate(empty)

    async def test_of_one_function_file_undo_all_of_them(
        self, dsn: str, connection: asyncpg.Connection, sql: Path
    ) -> None:
        change(sql / "functions" / "10_now.sql", "create function worker.extra() returns int language sql return 7;")
        bad = sql / "functions" / "60_settle.sql"
        change(bad, "\nselect nonsense;\n")
        line = bad.read_text().count("\n")
        with pytest.raises(SchemaError, match=rf"^sql/functions/60_settle\.sql:{line}: 42703"):
            await migrate(dsn)
        assert await connection.fetchval("select to_regproc('worker.extra')") is None

    async def test_behind_letters_of_two_bytes_the_line_is_right_too(self, empty: str, sql: Path) -> None:
        (sql / "migrations" / "0003_bad.sql").write_text("-- üüü ✓✓✓ 💥\n" * 9 + "selekt 1;\n", encoding="utf-8")
        with pytest.raises(SchemaError, match=r"0003_bad\.sql:10: 42601"):
            await migrate(empty)


class TestInstall:
    async def test_a_shipped_system_may_be_applied_again_at_any_time(self, connection: asyncpg.Connection) -> None:
        shipped = sorted(path.name for path in (migrations.sql_root() / "jobs").iterdir() if any(path.glob("*.sql")))
        assert shipped
        for system in shipped:
            first = await install(connection, system)
            assert first == sorted(first)
            assert await install(connection, system) == first

    async def test_an_unknown_one_is_refused(self, connection: asyncpg.Connection) -> None:
        with pytest.raises(SchemaError, match="no shipped system named 'poker'"):
            await install(connection, "poker")

    async def test_all_of_it_or_nothing(self, connection: asyncpg.Connection, sql: Path) -> None:
        folder = sql / "jobs" / "poker"
        folder.mkdir()
        (folder / "010_table.sql").write_text("create table public.chips ();")
        (folder / "020_bad.sql").write_text("nonsense")
        with pytest.raises(SchemaError, match=r"^sql/jobs/poker/020_bad\.sql:1: 42601"):
            await install(connection, "poker")
        assert await connection.fetchval("select to_regclass('public.chips')") is None


async def test_a_login_that_may_create_roles_and_owns_the_database_is_enough(
    cluster: Embedded, maintenance: asyncpg.Connection, template: str, empty: str
) -> None:
    """As on a hosting platform: no superuser. The roles may be there already, made by another database's migration."""
    if not hasattr(cluster, "restart"):
        pytest.skip("a given server: its roles are not ours to drop")
    login = f"plain_{uuid.uuid4().hex[:8]}"
    await maintenance.execute(f"create role {login} login createrole")
    database = urlsplit(empty).path[1:]
    await maintenance.execute(f"alter database {database} owner to {login}")
    await maintenance.execute(f"grant worker_owner to {login} with admin option")
    try:
        await migrate(empty.replace("postgres@", f"{login}@", 1))
        connection = await asyncpg.connect(empty)
        assert (
            await connection.fetchval("select nspowner::regrole::text from pg_namespace where nspname = 'worker'")
            == "worker_owner"
        )
        await connection.close()
    finally:
        await maintenance.execute(f"alter database {database} owner to postgres")
        await maintenance.execute(f"drop role {login}")
