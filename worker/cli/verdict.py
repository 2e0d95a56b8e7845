"""Errors as people meet them: one line that names the cure, and an exit code; never a traceback, never a secret."""

import errno
import socket
import ssl
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import structlog

from worker.cli.exits import BUG, ERROR, SCHEMA, UNREACHABLE, WATCHDOG
from worker.config.lines import Path as Key
from worker.config.lines import locate
from worker.database import is_transient
from worker.door import without_tls
from worker.errors import DatabaseUnreachable, DeclarationError, Faults, SchemaError, Stuck, WorkerError
from worker.log import safe

Said = tuple[int, str]

_PACKAGE = Path(__file__).parent.parent

_ADDRESS = (
    "the database address cannot be used: check host and port in database.url or DATABASE_URL; "
    "characters such as / # ? [ ] in the password must be percent-encoded"
)
# By SQLSTATE, for what a person can mend without us.
_CURES = {
    "28P01": "the database refuses this user or this password; check database.url or DATABASE_URL",
    "28000": "the database refuses this user from here: check database.url or DATABASE_URL, and pg_hba.conf",
    "3D000": "the database of database.url does not exist: create it, or name another",
    "42501": "the database user may not do this: give it the role that docs/security.md names",
}
_MIGRATING = "`worker migrate` needs a superuser, or CREATEROLE and CREATE on the database as in docs/security.md"
_NO_TLS = "who answers there does not speak TLS as sslmode of database.url asks for it, or is no PostgreSQL"
# What a system says about a connection; any other OSError is about a file or this machine.
_NETWORK = {None, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


class Refused(WorkerError):
    """A verb will not do what was asked; the message says why and what to do instead."""


class Unreached(DatabaseUnreachable):
    """No connection to `server` because of `reason`."""

    def __init__(self, server: str, reason: BaseException) -> None:
        super().__init__(f"no connection to {server}: {reason}")
        self.server = server
        self.reason = reason


def say(error: BaseException) -> int:
    """Write what is wrong to standard error; answers with the exit code."""
    code, text = judge(error)
    for line in text.splitlines():
        print(f"worker: {safe(line)}", file=sys.stderr)
    return code


def judge(error: BaseException) -> Said:
    """Exit code and text of an error."""
    error = innermost(error)
    if isinstance(error, WorkerError):
        return _own(error)
    if isinstance(error, asyncpg.PostgresError):
        return _postgres(error)
    if isinstance(error, OSError) and not _of_the_network(error):
        return ERROR, f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror or error}"
    if isinstance(error, OSError | asyncpg.InterfaceError):
        # A wrong interface error is an address that cannot be used; its own text may hold pieces of the password.
        return _connection(error, "the database")
    return BUG, f"{type(error).__name__}: {error} ({_place(error)}); this is a bug, please report it"


def innermost(error: BaseException) -> BaseException:
    """The first error of a group: the others are what it led to."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def is_bug(error: BaseException) -> bool:
    """True for what nobody raised on purpose and no database said: only a traceback helps."""
    known = (WorkerError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
    return not isinstance(innermost(error), known)


@contextmanager
def logged(config: Path) -> Iterator[None]:
    """A daemon that dies of a bug leaves its traceback in the log, without the values of variables.

    What the file at `config` declares and nobody has gets the line where it is declared.
    """
    try:
        yield
    except Exception as error:
        if is_bug(error):
            structlog.get_logger().error("service.crashed", exc_info=error)
        if isinstance(declared := innermost(error), DeclarationError):
            raise DeclarationError(located(declared.faults, config)) from None
        raise


def located(faults: Iterable[str], config: Path) -> list[str]:
    """Faults such as `job.greet.steps.say: …` with file and line before them."""
    try:
        lines = locate(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):  # it changed since it was read
        return list(faults)
    told = []
    for fault in faults:
        key: Key = tuple(fault.partition(": ")[0].split("."))
        line = next((lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines), None)
        told.append(f"{config}:{line}: {fault}" if line else fault)
    return told


def _own(error: WorkerError) -> Said:
    if isinstance(error, SchemaError):
        # With a cause it is a statement that failed, not a schema of another release.
        cure = f"; {_MIGRATING}" if getattr(error.__cause__, "sqlstate", None) == "42501" else ""
        return ERROR if error.__cause__ else SCHEMA, f"{error}{cure}"
    if isinstance(error, DatabaseUnreachable):
        return _connecting(error)
    if isinstance(error, Stuck):
        return WATCHDOG, str(error)
    return ERROR, "\n".join(error.faults) if isinstance(error, Faults) else str(error)


def _connecting(error: DatabaseUnreachable) -> Said:
    """No connection: not there (yet), or there and refusing for good."""
    reason = error.__cause__ or error.__context__ or error
    place = "the database"
    if isinstance(error, Unreached):
        reason, place = error.reason, f"the database at {error.server}"
    if isinstance(reason, OSError | asyncpg.InterfaceError):
        return _connection(reason, place)
    if reason is error or is_transient(reason):
        return UNREACHABLE, _lost(reason, place)
    return judge(reason)


def _connection(error: BaseException, place: str) -> Said:
    if is_transient(error):
        return UNREACHABLE, _lost(error, place)
    return ERROR, f"{place}: {_NO_TLS}: {error}" if without_tls(error) else _ADDRESS


def _of_the_network(error: OSError) -> bool:
    network = isinstance(error, ConnectionError | TimeoutError | socket.gaierror | ssl.SSLError)
    return not error.filename and (network or error.errno in _NETWORK)


def _postgres(error: asyncpg.PostgresError) -> Said:
    if is_transient(error):
        return UNREACHABLE, _lost(error, "the database")
    cure = _CURES.get(error.sqlstate or "") or getattr(error, "hint", None)
    told = f"{error.args[0]} ({error.sqlstate})"  # without DETAIL, which may hold a whole row
    return ERROR, f"{cure}: {told}" if cure in _CURES.values() else f"{told}; {cure}" if cure else told


def _lost(error: BaseException, place: str) -> str:
    said = str(error.args[0] if error.args and isinstance(error, asyncpg.PostgresError) else error) or "no answer"
    return f"{place} cannot be reached ({said}): is it running, and is database.url right?"


def _place(error: BaseException) -> str:
    """Where in this package it came up."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(_PACKAGE)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside of this package"
