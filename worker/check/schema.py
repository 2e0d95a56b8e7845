"""The schema `worker`: its version, its functions with their arguments, its declarations and its ring."""

import re

from worker import migrations
from worker.check.finding import Finding, fault, ok, warning
from worker.check.patient import Patient
from worker.errors import SchemaError

_SIGNATURE = re.compile(r"^comment on function (worker\.\w+\([^)]*\)) is", re.MULTILINE)
_MISSING = "select wanted from unnest($1::text[]) wanted where to_regprocedure(wanted) is null order by wanted"
_UNDECLARED = """
    select wanted from unnest($1::text[]) wanted
    where not exists (select from worker.job_type t where t.name = wanted) order by wanted
"""


def signatures() -> list[str]:
    """Every function of this release with the types of its arguments."""
    text = "\n".join(file.text for file in migrations.files("functions"))
    return sorted({" ".join(each.split()) for each in _SIGNATURE.findall(text)})


async def look(patient: Patient) -> list[Finding]:
    try:
        await migrations.verify(patient.connection)
    except SchemaError as error:
        cure = "run `worker migrate`" if "migrate" in str(error) else "run the release of this program that made it"
        return [fault("schema", str(error), cure)]
    wanted = signatures()
    missing = [row[0] for row in await patient.connection.fetch(_MISSING, wanted)]
    if missing:
        said = f"missing, or with other arguments: {', '.join(missing)}"
        return [
            fault("schema", said, "somebody changed the schema by hand: run `worker uninstall --print` and start anew")
        ]
    return [ok("schema", f"fits this release; its {len(wanted)} functions are there"), *await _declared(patient)]


async def _declared(patient: Patient) -> list[Finding]:
    found = []
    undeclared = [row[0] for row in await patient.connection.fetch(_UNDECLARED, list(patient.config.job))]
    if undeclared:
        cure = "run `worker migrate`, or start the daemon"
        found.append(warning("schema", f"not declared in the database yet: {', '.join(undeclared)}", cure))
    wake = patient.config.worker.wake
    if (wake == "ring") != await patient.connection.fetchval("select worker.rings()"):
        found.append(warning("schema", f"worker.wake is {wake!r}, the database has the other", "run `worker migrate`"))
    return found
