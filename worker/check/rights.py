"""Who may do what, the daemon's login first."""

from worker import migrations
from worker.check.finding import Finding
from worker.check.patient import Patient
from worker.check.questions import ask


async def login(patient: Patient) -> list[Finding]:
    """Of the login itself: whether it may be the daemon, and where it looks for functions."""
    return await ask(patient, "login")


async def look(patient: Patient) -> list[Finding]:
    """Of all roles, in the schema."""
    return [] if await migrations.later(patient.connection) else await ask(patient, "rights")
