"""The SQL functions that worker.toml names: there, and with the declared arguments."""

import asyncpg

from worker.check.finding import Finding, fault, ok
from worker.check.patient import Patient
from worker.errors import DeclarationError
from worker.handlers import sql_graph

_CURE = "create the function, or correct sql, arguments or database.search_path in worker.toml"


async def look(patient: Patient) -> list[Finding]:
    graphs = [job_type for job_type in patient.config.job.values() if job_type.kind == "steps"]
    if not graphs:
        return []
    found: list[Finding] = []
    path = {"search_path": patient.config.database.search_path}
    async with asyncpg.create_pool(patient.direct, min_size=0, max_size=1, timeout=10, server_settings=path) as pool:
        for job_type in graphs:
            try:
                await sql_graph.build(job_type, pool)
            except DeclarationError as error:
                found += [fault("functions", each, _CURE) for each in error.faults]
    steps = sum(len(job_type.steps or ()) for job_type in graphs)
    return found or [ok("functions", f"the {steps} functions of {len(graphs)} graphs are there, with their arguments")]
