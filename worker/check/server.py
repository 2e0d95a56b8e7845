"""The server: what it is, and how it is set."""

from worker.check.finding import Finding
from worker.check.patient import Patient
from worker.check.questions import ask

_BOUND = "select set_config('lock_timeout', '1s', false)"


async def look(patient: Patient) -> list[Finding]:
    return [*await ask(patient, "server", bound=False), *await ask(patient, "settings", bound=False)]


async def bound(patient: Patient) -> list[Finding]:
    """From here on nobody waits for a lock for long, us and those behind us; where the session is our own."""
    if patient.way.keeps:
        await patient.connection.execute(_BOUND)
    return []
