"""Clocks: the queue goes by the database's, so a difference only misleads who compares logs."""

import time

from worker.check.finding import Finding, info, warning
from worker.check.patient import Patient

_NOW = "select extract(epoch from clock_timestamp())::double precision"
_MOVED = "select exists (select from worker.clock)"


async def look(patient: Patient) -> list[Finding]:
    before = time.time()
    there: float = await patient.connection.fetchval(_NOW)
    after = time.time()
    found = [judged(there - (before + after) / 2, (after - before) / 2, patient.limits.skew)]
    if await patient.connection.fetchval(_MOVED):
        found.append(
            warning("clock.moved", "worker.set_clock moved it, which is for tests", "select worker.set_clock();")
        )
    return found


def judged(ahead: float, unsure: float, skew: float) -> Finding:
    """From the seconds that the database's clock is ahead of ours."""
    where = "ahead of" if ahead > 0 else "behind"
    said = f"the database's is {abs(ahead):.3f} s {where} ours, ± {unsure:.3f} s; jobs go by the database's"
    if abs(ahead) - unsure > skew:
        return warning("clock.skew", said, "set both machines' clocks by NTP: instants in logs cannot be compared")
    return info("clock", said)
