"""The SQL functions that worker.toml names: there, and with the declared arguments."""

from typing import Any

import asyncpg

from worker.check.finding import Finding, fault, ok
from worker.check.patient import Patient
from worker.connection import Connection
from worker.errors import DeclarationError
from worker.handlers import sql_graph
from worker.way import explore

_CURE = "create the function, or correct sql, arguments or database.search_path in worker.toml"


async def look(patient: Patient) -> list[Finding]:
    graphs = [job_type for job_type in patient.config.job.values() if job_type.kind == "steps"]
    if not graphs:
        return []
    found: list[Finding] = []
    path = {"search_path": patient.config.database.search_path}
    way = await explore(patient.direct)
    if not way.keeps:
        return []  # no steps there, whatever they are called

    async def enter(connection: Any) -> None:
        await connection.prepare_for(way, path)

    given = way.arguments("check", path)
    async with asyncpg.create_pool(**given, min_size=0, max_size=1, connection_class=Connection, init=enter) as pool:
        for job_type in graphs:
            try:
                await sql_graph.build(job_type, pool)
            except DeclarationError as error:
                found += [fault("functions", each, _CURE) for each in error.faults]
    steps = sum(len(job_type.steps or ()) for job_type in graphs)
    return found or [ok("functions", f"the {steps} functions of {len(graphs)} graphs are there, with their arguments")]
