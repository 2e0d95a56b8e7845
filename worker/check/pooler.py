"""Poolers: in session mode they keep a session, in transaction mode nothing."""

from collections.abc import Collection

from worker.check.finding import Finding, fault, info, ok, warning
from worker.check.patient import Patient
from worker.way import Pooler

_CURE = "set database.direct_url to the address of the server itself, or of a session pooler"


async def look(patient: Patient) -> list[Finding]:
    graphs = [name for name, job in patient.config.job.items() if job.kind == "steps"]
    return [judged(patient.way.pooler, None if patient.direct is patient.way else patient.direct.pooler, graphs)]


def judged(url: Pooler, direct: Pooler | None, graphs: Collection[str]) -> Finding:
    """From what lies before database.url and, where it is set, before database.direct_url; `graphs` have SQL steps."""
    last = url if direct is None else direct
    if last is Pooler.TRANSACTION:
        named = "database.url" if direct is None else "database.direct_url"
        said = f"{named} leads through a transaction pooler"
        if graphs:
            return fault("pooler.steps", f"{said}: no SQL steps there, as {', '.join(sorted(graphs))} has them", _CURE)
        said = f"{said}: no notifications, and a dead process is noticed by its lease alone"
        return warning("pooler.transaction", said, _CURE)
    if url is Pooler.TRANSACTION:
        return info("pooler", "database.url leads through a transaction pooler; beat, listener and steps do not")
    if last is Pooler.SESSION:
        return info("pooler", "a session pooler is on the way: a dead process is noticed by its lease alone")
    return ok("pooler", "none on the way")
