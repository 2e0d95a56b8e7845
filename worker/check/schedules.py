"""What the schedules of worker.toml name: the functions of for_each, and zones that the server need not know."""

from worker.check.finding import Finding, fault, ok, warning
from worker.check.patient import Patient

_CURE = "create the function, or correct for_each or database.search_path in worker.toml"
_ASK = "select worker.check_for_each($1, $2)"


async def look(patient: Patient) -> list[Finding]:
    """Every for_each must be there, give rows and take no arguments, and this login must be allowed to call it."""
    schedules = patient.config.schedule
    if not schedules:
        return []
    found: list[Finding] = []
    for name, schedule in schedules.items():
        if schedule.for_each is not None:
            path = patient.config.database.search_path
            said = await patient.connection.fetchval(_ASK, schedule.for_each, path)
            if said:
                found.append(fault("schedules", f"schedule.{name}.for_each: {said}", _CURE))
    for row in await patient.connection.fetch("select name, error from worker.schedules where state = 'failing'"):
        said = f"the last run of {row['name']} came to nothing: {row['error']}"
        found.append(warning("schedules", said, "mend it: it is tried again by itself; or `worker schedule pause`"))
    count = f"{len(schedules)} schedule{'' if len(schedules) == 1 else 's'}"
    return found or [ok("schedules", f"{count}, with what they name")]
