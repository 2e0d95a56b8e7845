"""The systems that are installed here: each says itself how it is, by a function `check()` of its schema."""

from typing import Any, get_args

import asyncpg
import orjson

from worker.check.finding import Finding, Level, fault
from worker.check.patient import Patient
from worker.check.questions import BOUND, questions


async def look(patient: Patient) -> list[Finding]:
    rows = await patient.connection.fetch(questions()["systems"])
    return [finding for row in rows for finding in await _asked(patient, row["system"], row["call"])]


async def _asked(patient: Patient, system: str, call: str) -> list[Finding]:
    try:
        async with patient.connection.transaction(readonly=True):
            await patient.connection.execute(BOUND)
            said = orjson.loads(await patient.connection.fetchval(call) or "[]")
    except asyncpg.PostgresError as error:
        cure = "mend that function: it reads, and answers within 8 s"
        return [fault("systems.failing", f"{system}.check() came to nothing: {error.args[0]} ({error.sqlstate})", cure)]
    return [_told(system, **each) for each in said]


def _told(system: str, level: Any, said: Any, cure: Any) -> Finding:
    if level in get_args(Level) and isinstance(said, str) and isinstance(cure, str | None):
        return Finding(system, level, said, cure)
    cure = f"let its rows have one of {', '.join(get_args(Level))} as level, and texts"
    return fault("systems.failing", f"{system}.check() says what is no finding: {level}, {said}", cure)
