"""Errors are a line that names the cure and an exit code; no traceback, no password."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
import structlog

from tests.cli.support import Cli
from tests.support import ROOT
from worker import log, migrating
from worker.cli import exits, reach
from worker.cli.app import app
from worker.cli.verdict import _ADDRESS, _CURES, _NO_TLS, judge, located, logged
from worker.config.redaction import mask
from worker.errors import DatabaseUnreachable, DeclarationError, SchemaError

NOBODY = "postgresql://u:geheim@127.0.0.1:1/x"


async def test_unreachable_database(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "REACH_SECONDS", 0.5)
    monkeypatch.setattr(reach.answering, "__defaults__", (0.5,))
    cli.dsn = NOBODY
    for verb in ("jobs", "migrate", "status"):
        answer = await cli(verb)
        assert (answer.code, answer.out) == (4, "")
        assert len(answer.err.splitlines()) == 1
        assert "geheim" not in answer.err
        assert "the database at 127.0.0.1:1/x cannot be reached (" in answer.err
        assert "efused" in answer.err


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://u:geheim@nowhere.invalid/x", "nowhere.invalid:5432/x cannot be reached ("),
        ("postgresql://u:geheim@/x?host=/no/such/folder&port=77", "/no/such/folder:77/x cannot be reached ("),
    ],
)
async def test_unreachable_says_where_and_why(cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str, reason: str) -> None:
    monkeypatch.setattr(reach.answering, "__defaults__", (0.5,))
    cli.dsn = url
    answer = await cli("jobs")
    assert answer.code == 4
    assert reason in answer.err
    assert "no answer" not in answer.err
    assert "geheim" not in answer.err


@pytest.mark.parametrize("verb", ["jobs", "migrate", "exporter", "run"])
async def test_a_port_that_is_none_is_an_error_of_the_configuration(cli: Cli, verb: str) -> None:
    cli.dsn = "postgresql://u:geheim@/x?host=127.0.0.1&port=x"
    answer = await cli(verb)
    assert (answer.code, answer.out) == (2, "")
    assert "DATABASE_URL: database.url: is no address" in answer.err
    assert "geheim" not in answer.err


async def test_black_hole(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and never says a word."""
    monkeypatch.setattr(reach.answering, "__defaults__", (0.2,))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        cli.dsn = f"postgresql://u:geheim@127.0.0.1:{port}/x"
        answer = await cli("jobs")
    assert answer.code == 4
    assert f"127.0.0.1:{port}/x cannot be reached (no answer within 0.2 s)" in answer.err


async def test_a_server_without_tls_is_not_waited_for(cli: Cli) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"N")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cli.dsn = f"postgresql://u:geheim@127.0.0.1:{port}/x?sslmode=require"
    answer = await asyncio.wait_for(cli("jobs"), 5)
    assert answer.code == 2
    assert "does not speak TLS" in answer.err
    assert "geheim" not in answer.err
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://u:geheim@h/x", "h:5432/x"),
        ("postgresql://u:geheim@h:99/x", "h:99/x"),
        ("postgresql://[::1]/x", "[::1]:5432/x"),
        ("postgresql:///x?host=/run", "/run:5432/x"),
        ("postgresql://u:1/geheim@h/x", "database.url"),
        ("postgresql://u:1?geheim@h/x", "database.url"),
    ],
)
def test_servers_are_named_without_user_and_password(url: str, told: str) -> None:
    assert reach.server(url) == told


def test_own_words_are_not_starred() -> None:
    assert [text for text in (*_CURES.values(), _ADDRESS, _NO_TLS) if mask(text) != text] == []
    _, text = judge(asyncpg.InvalidPasswordError('password authentication failed for user "u"'))
    assert mask(text) == text


def test_an_error_of_a_file_is_not_the_databases() -> None:
    code, text = judge(PermissionError(13, "Permission denied", "/etc/shadow"))
    assert (code, text) == (2, "/etc/shadow: Permission denied")


async def test_nobody_reads_standard_output(cli: Cli) -> None:
    for verb in (("jobs",), ("show", "1"), ("config", "show")):
        await cli("enqueue", "fine")
        with cli.start(*verb) as started:
            assert started.stdout is not None
            assert started.stderr is not None
            started.stdout.close()
            said = await asyncio.to_thread(started.stderr.read)
        assert (started.returncode, said) == (141, "")


def test_declarations_are_told_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text("\n[job.greet]\nsteps = { say = { sql = 'gret' } }\n")
    faults = ["job.greet.steps.say: no such function", "job.greet: odd", "elsewhere: x"]
    assert located(faults, file) == [f"{file}:3: {faults[0]}", f"{file}:2: {faults[1]}", faults[2]]


def test_migrating_as_nobody_in_particular_names_the_cure() -> None:
    error = SchemaError("sql/migrations/0001_roles.sql: 42501 permission denied to create role")
    error.__cause__ = asyncpg.InsufficientPrivilegeError("permission denied to create role")
    code, text = judge(error)
    assert code == 2
    assert "docs/security.md" in text


async def test_who_keeps_a_migration_waiting_is_named(
    cli: Cli, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.execute("select pg_advisory_lock($1)", migrating.LOCK)
    monkeypatch.setattr(migrating, "LOCK_SECONDS", 0.1)
    answer = await cli("migrate")
    assert (answer.code, answer.out) == (2, "")
    assert f"pid {connection.get_server_pid()} of the server, user " in answer.err


async def test_no_schema(cli: Cli, connection: asyncpg.Connection) -> None:
    await connection.execute("drop schema worker cascade")
    answer = await cli("jobs")
    assert answer.code == 3
    assert "has no schema worker; run `worker migrate`" in answer.err


async def test_missing_database_is_not_waited_for(cli: Cli) -> None:
    cli.dsn = cli.dsn.replace(cli.dsn.split("?")[0].rpartition("/")[2], "nowhere", 1)
    answers = [await cli("jobs"), await cli.process("run")]
    assert [answer.code for answer in answers] == [2, 2]
    assert all("does not exist" in answer.err for answer in answers)


async def test_address_with_a_bare_slash_in_its_password(cli: Cli) -> None:
    cli.dsn = "postgresql://u:ge/heim@127.0.0.1/x"
    for answer in (await cli("jobs"), await cli.process("run"), await cli.process("check", "--config-only")):
        assert answer.code in (1, 2)
        assert "environment DATABASE_URL: database.url: is no address: percent-encode" in answer.out + answer.err
        assert "heim" not in answer.out + answer.err


def test_a_daemon_that_crashes_by_a_bug_is_started_again(cli: Cli) -> None:
    """systemd keeps 2 and 3 down; a bug is neither."""
    broken = "from worker import life; life.Life._declare = None; from worker.cli import main; main()"
    command = [sys.executable, "-c", broken, "run", "--config", str(cli.config)]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "DATABASE_URL": cli.dsn}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ended.returncode == exits.BUG, ended.stderr
    assert "service.crashed" in ended.stderr
    assert "this is a bug" in ended.stderr


def test_the_page_and_the_help_list_every_exit_code() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes
    assert codes - {exits.OK, exits.NO, exits.ERROR, exits.SCHEMA, exits.INTERRUPTED, exits.BROKEN_PIPE} <= {
        int(code) for code in re.findall(r"\d+", str(app.info.epilog))
    }


@pytest.mark.parametrize("schema", ["old", "new"])
async def test_schema_of_another_release(cli: Cli, connection: asyncpg.Connection, schema: str) -> None:
    if schema == "old":
        await connection.execute("delete from worker.migration where name like 'functions/%'")
    else:
        await connection.execute("insert into worker.migration (name, digest) values ('migrations/9999_later.sql', '')")
    for answer in (await cli("jobs"), await cli("enqueue", "fine"), await cli.process("run")):
        assert (answer.code, answer.out) == (3, "")
        assert f"too {schema}" in answer.err


@pytest.mark.parametrize(("serves", "code"), [(1, 0), (1000, 3)])
async def test_schema_of_a_later_release(cli: Cli, connection: asyncpg.Connection, serves: int, code: int) -> None:
    await connection.execute(
        "create or replace function worker.edition(out edition integer, out serves integer) language sql immutable as"
        f" 'select 1000, {serves}'"
    )
    await connection.execute("insert into worker.migration (name, digest) values ('migrations/9999_later.sql', '')")
    before = await connection.fetch("select * from worker.migration order by name")
    migrated = await cli("migrate")
    assert await connection.fetch("select * from worker.migration order by name") == before
    assert [answer.code for answer in (migrated, await cli("jobs"), await cli("enqueue", "fine"))] == [code] * 3
    assert ("serves this one" if code == 0 else "too new: it is of edition 1000") in migrated.out + migrated.err


async def test_every_fault_of_the_configuration_is_told(cli: Cli) -> None:
    cli.config.write_text("[worker]\nconcurency = 1\n")
    answer = await cli("jobs")
    assert answer.code == 2
    assert "did you mean concurrency" in answer.err
    assert "environment" in answer.err


async def test_missing_handler(cli: Cli) -> None:
    cli.config.write_text(cli.config.read_text() + "\n[job.gone]\npython = 'tests.cli.handlers:gone'\n")
    answer = await cli.process("drain")
    assert answer.code == 2
    assert f"worker: {cli.config}:" in answer.err
    assert "job.gone" in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err


async def test_unknown_verb_is_bad_usage(cli: Cli) -> None:
    assert (await cli("frobnicate")).code == 2


def refusal(reason: Exception) -> DatabaseUnreachable:
    """As `wait_until_up` raises it."""
    try:
        try:
            raise reason
        except type(reason):
            raise DatabaseUnreachable("no") from None
    except DatabaseUnreachable as error:
        return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refusal(asyncpg.InvalidPasswordError("password authentication failed")), 2),
        (refusal(asyncpg.CannotConnectNowError("the database system is starting up")), 4),
        (refusal(ConnectionRefusedError(111, "refused")), 4),
        (DatabaseUnreachable("no answer within 10 s"), 4),
        (SchemaError("too old"), 3),
        (DeclarationError(["a", "b"]), 2),
        (ExceptionGroup("x", [ExceptionGroup("y", [OSError("gone")])]), 4),
        (asyncpg.InsufficientPrivilegeError("permission denied"), 2),
        (asyncpg.InterfaceError("invalid dsn geheim"), 2),
        (ZeroDivisionError("oh"), 70),
        (ExceptionGroup("duties", [AssertionError("oh")]), 70),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    found, text = judge(error)
    assert found == code
    assert text
    assert "geheim" not in text


def test_a_bug_leaves_its_traceback_but_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    def crash() -> None:
        password = "geheim"
        with logged(Path("worker.toml")):
            raise ExceptionGroup("duties", [ZeroDivisionError(len(password))])

    log.configure(json=True)
    with pytest.raises(ExceptionGroup):
        crash()
    said = capsys.readouterr().err
    assert "service.crashed" in said
    assert "test_errors.py" in said
    structlog.reset_defaults()
