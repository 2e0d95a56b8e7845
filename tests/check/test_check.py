"""The doctor: a healthy database is found healthy, each fault is found and named with a cure."""

import uuid
from pathlib import Path

import asyncpg
import pytest

from tests.cli.support import Cli
from tests.conftest import Given
from tests.heart import configured, write_config
from worker.check import Finding, examine, examine_config
from worker.check.capacity import judged as capacity
from worker.check.pooler import judged as pooler
from worker.check.schema import signatures
from worker.embedded import Embedded
from worker.migrations import files
from worker.way import Pooler

JOBS = '[job.fine]\npython = "tests.cli.handlers:fine"\n'
GRAPH = '[job.graph]\narguments = {n = "n"}\nsteps = { one = { sql = "double" } }\n'


def bad(findings: list[Finding]) -> dict[str, Finding]:
    """Faults and warnings by subject, without what a superuser's login always gives."""
    return {
        each.subject: each for each in findings if each.level in ("fault", "warning") and "superuser" not in each.said
    }


@pytest.fixture
async def declared(dsn: str, tmp_path: Path) -> None:
    assert (await Cli(tmp_path, dsn)("migrate")).code == 0


@pytest.mark.usefixtures("declared")
async def test_a_healthy_database(dsn: str, tmp_path: Path) -> None:
    findings = await examine(configured(tmp_path, dsn, JOBS))
    assert bad(findings) == {}
    assert {each.subject for each in findings} == {
        "database", "schema", "rights", "connections", "pooler", "notifications", "clock",
    }  # fmt: skip


async def test_every_fault_and_warning_has_a_cure(dsn: str, tmp_path: Path) -> None:
    findings = await examine(configured(tmp_path, dsn, JOBS + GRAPH, database='steps = 500\nsearch_path = "nowhere"'))
    assert [each for each in findings if each.level in ("fault", "warning") and not each.cure] == []
    assert {"functions", "rights", "connections", "schema"} <= bad(findings).keys()


class TestConfiguration:
    def test_each_fault_of_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/x")
        config, findings = examine_config(write_config(tmp_path, "[job.a]\nnothing = 1\n[job.b]\nthere = 2\n"))
        assert config is None
        assert [each.level for each in findings] == ["fault"] * len(findings)
        assert len(findings) >= 2
        assert all(each.cure for each in findings)

    def test_coroutines_that_are_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/x")
        config, findings = examine_config(write_config(tmp_path, '[job.a]\npython = "tests.cli.handlers:gone"\n'))
        assert config is not None
        assert "gone" in bad(findings)["coroutines"].said


class TestDatabase:
    async def test_nobody_answers(self, tmp_path: Path) -> None:
        findings = await examine(configured(tmp_path, "postgresql://u:geheim@localhost:1/x", JOBS))
        assert [each.level for each in findings] == ["fault"]
        assert "geheim" not in str(findings)

    async def test_it_is_read_only(self, dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
        name = await connection.fetchval("select current_database()")
        await connection.execute(f"alter database {name} set default_transaction_read_only = on")
        assert "read-only" in bad(await examine(configured(tmp_path, dsn, JOBS)))["database"].said


class TestSchema:
    async def test_not_there(self, dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
        await connection.execute("drop schema worker cascade")
        found = bad(await examine(configured(tmp_path, dsn, JOBS)))["schema"]
        assert (found.level, found.cure) == ("fault", "run `worker migrate`")

    async def test_every_function_is_known_by_its_arguments(self, connection: asyncpg.Connection) -> None:
        there = await connection.fetchval("select count(*) from pg_proc where pronamespace = 'worker'::regnamespace")
        assert len(signatures()) == there
        assert files("functions")

    async def test_a_function_that_somebody_replaced(
        self, dsn: str, tmp_path: Path, connection: asyncpg.Connection
    ) -> None:
        await connection.execute("alter function worker.retry(bigint, boolean) rename to retried")
        found = bad(await examine(configured(tmp_path, dsn, JOBS)))["schema"]
        assert (found.level, "worker.retry(bigint, boolean)" in found.said) == ("fault", True)

    @pytest.mark.usefixtures("declared")
    async def test_the_ring_is_another(self, dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
        await connection.execute("select worker.set_ring(false)")
        assert "worker.wake" in bad(await examine(configured(tmp_path, dsn, JOBS)))["schema"].said

    async def test_types_that_are_not_declared(self, dsn: str, tmp_path: Path) -> None:
        found = bad(await examine(configured(tmp_path, dsn, JOBS)))["schema"]
        assert (found.level, "fine" in found.said) == ("warning", True)


class TestFunctions:
    async def test_there(self, dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
        await connection.execute("create function double(n integer) returns integer language sql as 'select 2 * n'")
        findings = await examine(configured(tmp_path, dsn, GRAPH))
        assert [each.level for each in findings if each.subject == "functions"] == ["ok"]

    async def test_missing_or_with_other_arguments(
        self, dsn: str, tmp_path: Path, connection: asyncpg.Connection
    ) -> None:
        config = configured(tmp_path, dsn, GRAPH)
        assert bad(await examine(config))["functions"].level == "fault"
        await connection.execute("create function double(other text) returns integer language sql as 'select 1'")
        assert bad(await examine(config))["functions"].level == "fault"


class TestRights:
    async def test_of_logins(
        self, dsn: str, tmp_path: Path, connection: asyncpg.Connection, cluster: Embedded | Given
    ) -> None:
        if isinstance(cluster, Given):
            pytest.skip("a login without a password is for our own server")
        name = f"daemon_{uuid.uuid4().hex[:12]}"
        config = configured(tmp_path, dsn.replace("postgres@", f"{name}@", 1), JOBS)
        await connection.execute(f"create role {name} login")
        try:
            found = bad(await examine(config))
            assert f"grant worker_run to {name};" in {each.cure for each in found.values()}
            await connection.execute(f"grant worker_run to {name}")
            findings = await examine(config)
            assert [each.level for each in findings if each.subject == "rights"] == ["ok"]
            assert [each for each in findings if each.level == "fault"] == []
        finally:
            await connection.execute(f"drop role {name}")

    async def test_search_path(self, dsn: str, tmp_path: Path) -> None:
        found = bad(await examine(configured(tmp_path, dsn, JOBS, database='search_path = "public, nowhere"')))[
            "rights"
        ]
        assert "nowhere, which does not exist" in found.said


class TestConnections:
    @pytest.mark.parametrize(
        ("steps", "most", "used", "level"), [(8, 97, 3, "ok"), (8, 97, 90, "warning"), (100, 97, 0, "fault")]
    )
    def test_against_what_the_server_has(self, steps: int, most: int, used: int, level: str) -> None:
        assert capacity(steps, most, used).level == level

    async def test_a_limit_of_the_database_counts(
        self, dsn: str, tmp_path: Path, connection: asyncpg.Connection
    ) -> None:
        name = await connection.fetchval("select current_database()")
        await connection.execute(f"alter database {name} connection limit 5")
        assert "gives 5" in bad(await examine(configured(tmp_path, dsn, JOBS)))["connections"].said


NONE, SESSION, TRANSACTION = Pooler.NONE, Pooler.SESSION, Pooler.TRANSACTION


class TestPooler:
    @pytest.mark.parametrize(
        ("url", "direct", "graphs", "level"),
        [
            (NONE, None, ["a"], "ok"),
            (NONE, NONE, ["a"], "ok"),
            (TRANSACTION, None, ["a"], "fault"),
            (TRANSACTION, None, [], "warning"),
            (TRANSACTION, NONE, ["a"], "info"),
            (TRANSACTION, SESSION, ["a"], "info"),
            (NONE, TRANSACTION, ["a"], "fault"),
            (SESSION, None, ["a"], "info"),
        ],
    )
    def test_by_what_is_before_the_addresses(
        self, url: Pooler, direct: Pooler | None, graphs: list[str], level: str
    ) -> None:
        found = pooler(url, direct, graphs)
        assert found.level == level
        assert ("direct_url" in str(found.cure)) == (level in ("fault", "warning"))


async def test_notifications_that_do_not_arrive(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.check.notify.SECONDS", 0.05)
    monkeypatch.setattr("asyncpg.Connection.add_listener", lambda *given: _nothing())
    found = bad(await examine(configured(tmp_path, dsn, JOBS)))["notifications"]
    assert "direct_url" in str(found.cure)


async def _nothing() -> None:
    pass


async def test_a_moved_clock_is_told(dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
    await connection.execute("select worker.set_clock(shift => '1 hour')")
    findings = await examine(configured(tmp_path, dsn, JOBS))
    assert any("set_clock" in each.said for each in findings if each.subject == "clock")


class TestVerb:
    async def test_healthy(self, tmp_path: Path, dsn: str) -> None:
        cli = Cli(tmp_path, dsn)
        await cli("migrate")
        answer = await cli("check", "--json")
        assert (answer.code, answer.value["ok"]) == (0, True)
        assert set(answer.value["findings"][0]) == {"subject", "level", "said", "cure"}
        assert "✓ notifications: arrive" in (await cli("check")).out

    async def test_a_fault_is_a_no_with_its_cure(
        self, tmp_path: Path, dsn: str, connection: asyncpg.Connection
    ) -> None:
        await connection.execute("drop schema worker cascade")
        answer = await Cli(tmp_path, dsn)("check")
        assert answer.code == 1
        assert "✗ schema: the database has no schema worker" in answer.out
        assert "  cure: run `worker migrate`" in answer.out

    async def test_config_only_needs_no_database(self, tmp_path: Path) -> None:
        cli = Cli(tmp_path, "postgresql://localhost:1/nothing")
        sound, reached = await cli("check", "--config-only", "--json"), await cli("check", "--json")
        assert (sound.code, reached.code) == (0, 1)
        cli.config.write_text("environment = 1\n", encoding="utf-8")
        broken = await cli("check", "--config-only", "--json")
        assert (broken.code, broken.value["ok"]) == (1, False)


SCHEDULE = '[schedule.nightly]\ncron = "@daily"\njob = "fine"\nfor_each = "{}"\n'


FOR_EACH = (
    (None, "clubs", "there is no function clubs"),
    (None, "nowhere.clubs", "there is no function nowhere.clubs"),
    ("clubs() returns integer", "clubs", "clubs is not set-returning"),
    ("clubs(n integer) returns setof integer", "clubs", "clubs cannot be called without arguments"),
    ("clubs() returns setof integer", "clubs", None),
    ("clubs(n integer default 1) returns setof integer", "public.clubs", None),
)


class TestSchedules:
    async def look(self, dsn: str, folder: Path, for_each: str = "clubs") -> list[Finding]:
        found = await examine(configured(folder, dsn, JOBS + SCHEDULE.format(for_each)))
        return [each for each in found if each.subject == "schedules"]

    @pytest.mark.parametrize("case", FOR_EACH)
    async def test_for_each(self, dsn: str, tmp_path: Path, case: tuple[str | None, str, str | None]) -> None:
        function, for_each, said = case
        if function:
            connection = await asyncpg.connect(dsn)
            await connection.execute(f"create function {function} language sql as 'select 1'")
            await connection.close()
        (found,) = await self.look(dsn, tmp_path, for_each)
        wanted = f"schedule.nightly.for_each: {said}" if said else "1 schedule, with what they name"
        assert (found.level, found.said) == ("fault" if said else "ok", wanted)

    async def test_for_each_that_this_login_may_not_call(
        self, dsn: str, tmp_path: Path, connection: asyncpg.Connection
    ) -> None:
        name = f"runner_{uuid.uuid4().hex[:8]}"
        await connection.execute(
            f"create role {name} login in role worker_run;"
            "create function clubs() returns setof integer language sql as 'select 1';"
            "revoke all on function clubs() from public"
        )
        try:
            config = configured(tmp_path, dsn.replace("postgres@", f"{name}@"), JOBS + SCHEDULE.format("clubs"))
            found = [each.said for each in await examine(config) if each.subject == "schedules"]
            assert found == [f"schedule.nightly.for_each: {name} may not execute clubs"]
        finally:
            await connection.execute(f"drop owned by {name}; drop role {name}")

    async def test_one_that_fails_is_told(self, dsn: str, tmp_path: Path, connection: asyncpg.Connection) -> None:
        await connection.execute("create function clubs() returns setof integer language sql as 'select 1'")
        cli = Cli(tmp_path, dsn)
        write_config(tmp_path, JOBS + SCHEDULE.format("clubs"))
        assert (await cli("migrate")).code == 0
        await connection.execute("update worker.schedule set error = 'E'")
        (found,) = await self.look(dsn, tmp_path)
        assert (found.level, found.said) == ("warning", "the last run of nightly came to nothing: E")
