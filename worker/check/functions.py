"""The SQL functions that worker.toml names: there, with the declared arguments, and in good hands."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from worker.check.finding import Finding, fault, ok
from worker.check.patient import Patient
from worker.check.questions import ask, questions
from worker.config import JobType
from worker.connection import Connection
from worker.errors import DeclarationError
from worker.handlers import sql_graph


async def look(patient: Patient) -> list[Finding]:
    found = await ask(patient, "steps")
    graphs = [job_type for job_type in patient.config.job.values() if job_type.kind == "steps"]
    if not graphs or not patient.direct.keeps:
        return found  # no steps there, whatever they are called
    path = {"search_path": patient.config.database.search_path}

    async def enter(connection: Any) -> None:
        await connection.prepare_for(patient.direct, path)

    given = patient.direct.arguments("check", path)
    async with asyncpg.create_pool(**given, min_size=0, max_size=1, connection_class=Connection, init=enter) as pool:
        for job_type in graphs:
            found += [each async for each in _faults(job_type, pool)]
    if any(each.level == "fault" for each in found):
        return found
    steps = sum(len(job_type.steps or ()) for job_type in graphs)
    return [ok("functions", f"the {steps} functions of {len(graphs)} graphs are there, with their arguments"), *found]


async def _faults(job_type: JobType, pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[Finding]:
    try:
        await sql_graph.build(job_type, pool)
    except DeclarationError as error:
        for said in error.faults:
            step = said.partition(": ")[0].rpartition(".")[2]
            rows = await pool.fetch(questions()["named"], (job_type.steps or {})[step].sql)
            yield _judged(said, [(row["login"], row["function"]) for row in rows])


def _judged(said: str, named: list[tuple[str, str]]) -> Finding:
    """From what was said of one step, and the functions that its name stands for."""
    if not named:
        return fault(
            "functions.missing", said, "create the function, or correct sql or database.search_path in worker.toml"
        )
    login, function = named[0]
    if len(named) > 1:
        return fault(
            "functions.ambiguous",
            said,
            f"name its schema in worker.toml, or drop one of them: `drop function {named[-1][1]};`",
        )
    if "no right" in said:
        return fault("functions.execute", said, f"grant execute on function {function} to {login};")
    return fault(
        "functions.arguments", said, "correct arguments in worker.toml, or the function's own, which go by name"
    )
