"""One visit at the database: every subject in its order, none stopped by the trouble of another, and never for long."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from worker.check import (
    activity,
    capacity,
    clock,
    declared,
    endpoints,
    functions,
    notify,
    pooler,
    rights,
    schema,
    server,
    systems,
)
from worker.check.finding import Finding, fault
from worker.check.patient import Limits, Patient
from worker.config import Config
from worker.connection import Connection, connect
from worker.database import DATABASE_ERRORS
from worker.way import Way, explore

SECONDS = 10.0  # for one subject
MOST_SECONDS = 60.0  # for all of them

_UNREACHED = "is it running, has it connections left, and is database.url (or DATABASE_URL) right?"

Look = Callable[[Patient], Awaitable[list[Finding]]]

# Those after the schema's version ask what is in it. The settings are looked at before any is made.
BEFORE: tuple[tuple[str, Look], ...] = (
    ("database", server.look),
    ("database", server.bound),
    ("connections", pooler.look),
    ("endpoints", endpoints.look),
    ("rights", rights.login),
    ("activity", activity.locks),
    ("schema", schema.version),
)
SUBJECTS: tuple[tuple[str, Look], ...] = (
    ("schema", schema.look),
    ("rights", rights.look),
    ("functions", functions.look),
    ("types", declared.look),
    ("producers", activity.producers),
    ("connections", capacity.look),
    ("processes", activity.look),
    ("notifications", notify.look),
    ("clock", clock.look),
    ("systems", systems.look),
)


class _Silent(Exception):
    """The database does not answer any more."""


async def examine(config: Config, limits: Limits | None = None) -> list[Finding]:
    """Look at the database through the eyes of the daemon's login; takes about a minute at the very most."""
    assert config.database.url is not None  # or the file would have been refused
    url = config.database.url.get_secret_value()
    direct = config.database.direct_url
    try:
        async with asyncio.timeout(SECONDS):
            connection = await connect(url, "check")
    except (*DATABASE_ERRORS, ValueError) as error:
        return [fault("database.unreachable", _said(error), _UNREACHED)]
    try:
        return await _visit(config, connection, url, direct.get_secret_value() if direct else url, limits or Limits())
    finally:
        await _leave(connection)


async def _visit(config: Config, connection: Connection, url: str, direct: str, limits: Limits) -> list[Finding]:
    end = time.monotonic() + MOST_SECONDS
    found: list[Finding] = []
    try:
        way, other = await _ways(url, direct, end)
        patient = Patient(config, connection, way, other, limits)
        for subject, look in BEFORE:
            found += await _looked(subject, look, patient, end)
        if not any(each.subject == "schema" and each.level == "fault" for each in found):
            for subject, look in SUBJECTS:
                found += await _looked(subject, look, patient, end)
    except _Silent as silent:
        cure = "look at the server and the way to it; what was found before that counts all the same"
        found.append(fault("database.silent", f"no answer any more, when it was asked for {silent}", cure))
    except DATABASE_ERRORS as error:
        if direct == url:
            return [fault("database.unreachable", _said(error), _UNREACHED)]
        found.append(fault("database.direct", _said(error), "is database.direct_url right?"))
    return found


async def _ways(url: str, direct: str, end: float) -> tuple[Way, Way]:
    async with _deadline("the way to it", end):
        way = await explore(url)
        return way, way if direct == url else await explore(direct)


async def _looked(subject: str, look: Look, patient: Patient, end: float) -> list[Finding]:
    try:
        async with _deadline(subject, end):
            return await look(patient)
    except DATABASE_ERRORS as error:
        cure = "see the findings above; then check again"
        return [fault(f"{subject}.unseen", f"could not be looked at: {_said(error)}", cure)]


@asynccontextmanager
async def _deadline(what: str, end: float) -> AsyncIterator[None]:
    timer = asyncio.timeout(max(min(SECONDS, end - time.monotonic()), 0))
    try:
        async with timer:
            yield
    except TimeoutError:
        if timer.expired():
            raise _Silent(what) from None
        raise


async def _leave(connection: Connection) -> None:
    try:
        await connection.close(timeout=2)
    except DATABASE_ERRORS:
        connection.terminate()


def _said(error: BaseException) -> str:
    # Of others than Postgres itself the text may hold pieces of the address, and so of the password.
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.args[0]} ({error.sqlstate})"
    return type(error).__name__ + (f": {error.strerror}" if isinstance(error, OSError) and error.strerror else "")
