"""One visit at the database: every subject in its order, none stopped by the trouble of another."""

from collections.abc import Awaitable, Callable

import asyncpg

from worker.check import capacity, clock, functions, notify, pooler, rights, schedules, schema, server, systems
from worker.check.finding import Finding, fault
from worker.check.patient import Patient
from worker.config import Config
from worker.connection import connect
from worker.database import DATABASE_ERRORS

Look = Callable[[Patient], Awaitable[list[Finding]]]

SUBJECTS: tuple[tuple[str, Look], ...] = (
    ("database", server.look),
    ("schema", schema.look),
    ("rights", rights.look),
    ("functions", functions.look),
    ("schedules", schedules.look),
    ("connections", capacity.look),
    ("pooler", pooler.look),
    ("notifications", notify.look),
    ("clock", clock.look),
    ("systems", systems.look),
)


async def examine(config: Config) -> list[Finding]:
    """Look at the database through the eyes of the daemon's login."""
    if config.database.url is None:
        return [fault("database", "no database is named", "set database.url or DATABASE_URL")]
    url = config.database.url.get_secret_value()
    direct = config.database.direct_url
    try:
        connection = await connect(url, "check", statement_timeout="10s")
    except (*DATABASE_ERRORS, ValueError) as error:
        return [fault("database", _said(error), "is it running, and is database.url (or DATABASE_URL) right?")]
    try:
        patient = Patient(config, connection, url, direct.get_secret_value() if direct else url)
        return [finding for subject, look in SUBJECTS for finding in await _looked(subject, look, patient)]
    finally:
        await connection.close(timeout=5)


async def _looked(subject: str, look: Look, patient: Patient) -> list[Finding]:
    try:
        return await look(patient)
    except DATABASE_ERRORS as error:
        return [fault(subject, f"could not be looked at: {_said(error)}", "see the faults above; then check again")]


def _said(error: BaseException) -> str:
    # Of others than Postgres itself the text may hold pieces of the address, and so of the password.
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.args[0]} ({error.sqlstate})"
    return type(error).__name__ + (f": {error.strerror}" if isinstance(error, OSError) and error.strerror else "")
