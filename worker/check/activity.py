"""What goes on just now, and how the tables have kept."""

from worker.check.finding import Finding
from worker.check.patient import Patient
from worker.check.questions import ask


async def locks(patient: Patient) -> list[Finding]:
    """Who is in the way; looked at first, for it may be in ours as well."""
    return await ask(patient, "activity")


async def look(patient: Patient) -> list[Finding]:
    return [*await ask(patient, "processes"), *await ask(patient, "storage")]


async def producers(patient: Patient) -> list[Finding]:
    """Triggers of applications, and who else reaches the schema."""
    return await ask(patient, "producers")
