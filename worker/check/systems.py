"""The systems that are installed here: each says itself how it is, by a function `check()` of its schema."""

import asyncpg
import orjson

from worker.check.finding import Finding, fault
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
    return [Finding(system, each["level"], each["said"], each["cure"]) for each in said]
