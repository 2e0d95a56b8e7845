"""What worker.toml and the database know of each other: types, schedules, and the functions of for_each."""

from worker.check.finding import Finding, fault, ok
from worker.check.patient import Patient
from worker.check.questions import ask

_CURE = "create the function, or correct for_each or database.search_path in worker.toml"
_ASK = "select worker.check_for_each($1, $2)"


async def look(patient: Patient) -> list[Finding]:
    found = await ask(patient, "declared")
    found += [fault("schedules.for_each", said, _CURE) for said in await _for_each(patient)]
    schedules = len(patient.config.schedule)
    if schedules and not any(each.subject == "schedules" for each in found):
        found.insert(0, ok("schedules", f"{schedules} schedule{'' if schedules == 1 else 's'}, with what they name"))
    return found


async def _for_each(patient: Patient) -> list[str]:
    """Every for_each must be there, give rows and take no arguments, and this login must be allowed to call it."""
    faults = []
    for name, schedule in patient.config.schedule.items():
        if schedule.for_each is not None:
            path = patient.config.database.search_path
            said = await patient.connection.fetchval(_ASK, schedule.for_each, path)
            if said:
                faults.append(f"schedule.{name}.for_each: {said}")
    return faults
