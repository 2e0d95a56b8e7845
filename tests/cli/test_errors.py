"""Errors are a line that names the cure and an exit code; no traceback, no password."""

import asyncpg
import pytest
import structlog

from tests.cli.support import Cli
from worker import log
from worker.cli import reach
from worker.cli.verdict import judge, logged
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


async def test_missing_database_is_not_waited_for(cli: Cli) -> None:
    cli.dsn = cli.dsn.replace(cli.dsn.split("?")[0].rpartition("/")[2], "nowhere", 1)
    answers = [await cli("jobs"), await cli.process("run")]
    assert [answer.code for answer in answers] == [2, 2]
    assert all("does not exist" in answer.err for answer in answers)


async def test_address_with_a_bare_slash_in_its_password(cli: Cli) -> None:
    cli.dsn = "postgresql://u:ge/heim@127.0.0.1/x"
    for answer in (await cli("jobs"), await cli.process("run")):
        assert answer.code == 2
        assert "percent-encode" in answer.err
        assert "heim" not in answer.err


@pytest.mark.parametrize("schema", ["old", "new"])
async def test_schema_of_another_release(cli: Cli, connection: asyncpg.Connection, schema: str) -> None:
    if schema == "old":
        await connection.execute("delete from worker.migration where name like 'functions/%'")
    else:
        await connection.execute("insert into worker.migration (name, digest) values ('migrations/9999_later.sql', '')")
    for answer in (await cli("jobs"), await cli("enqueue", "fine"), await cli.process("run")):
        assert (answer.code, answer.out) == (3, "")
        assert f"too {schema}" in answer.err


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
        (ZeroDivisionError("oh"), 2),
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
        with logged():
            raise ExceptionGroup("duties", [ZeroDivisionError(len(password))])

    log.configure(json=True)
    with pytest.raises(ExceptionGroup):
        crash()
    said = capsys.readouterr().err
    assert "service.crashed" in said
    assert "test_errors.py" in said
    structlog.reset_defaults()
