"""Clocks: the queue goes by the database's, so a difference only misleads who compares logs."""

import time

from worker.check.finding import Finding, info
from worker.check.patient import Patient


async def look(patient: Patient) -> list[Finding]:
    before = time.time()
    there: float = await patient.connection.fetchval("select extract(epoch from clock_timestamp())::double precision")
    after = time.time()
    ahead, unsure = there - (before + after) / 2, (after - before) / 2
    where = "ahead of" if ahead > 0 else "behind"
    found = [
        info("clock", f"the database's is {abs(ahead):.3f} s {where} ours, ± {unsure:.3f} s; jobs go by the database's")
    ]
    if await patient.connection.fetchval("select exists (select from worker.clock)"):
        found.append(
            info("clock", "it is moved by worker.set_clock, which is for tests: select worker.set_clock() ends it")
        )
    return found
