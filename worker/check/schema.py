"""The schema `worker`: its version, and whether everything in it is as this release makes it."""

from worker import migrations
from worker.check.finding import Finding, fault, info, ok
from worker.check.patient import Patient
from worker.check.questions import ask
from worker.check.release import release
from worker.errors import SchemaError


async def version(patient: Patient) -> list[Finding]:
    """Nothing, or the fault for which the rest of the schema need not be looked at."""
    try:
        await migrations.verify(patient.connection)
    except SchemaError as error:
        if "migrate" in str(error):
            return [fault("schema.old", str(error), "run `worker migrate`")]
        return [fault("schema.version", str(error), "run the release of this program that made it")]
    return []


async def look(patient: Patient) -> list[Finding]:
    if await migrations.later(patient.connection):
        return [info("schema", "it is of a later release, which serves this one; what is in it is that one's affair")]
    found = [each for name in ("functions", "relations", "guards") for each in await ask(patient, name)]
    if any(each.level == "fault" for each in found):
        return found
    count = len(release()["functions"])
    return [ok("schema", f"fits this release; its {count} functions are there"), *found]
