"""The questions of sql/check, each answered with findings: all that can be asked of a database in SQL."""

from functools import cache

from worker.check.finding import Finding
from worker.check.patient import Patient
from worker.migrations import files

BOUND = "select set_config('lock_timeout', '1s', true), set_config('statement_timeout', '8s', true)"


@cache
def questions() -> dict[str, str]:
    """The text of each question by its name: `20_relations.sql` is `relations`."""
    return {file.name.partition("_")[2].removesuffix(".sql"): file.text for file in files("check")}


async def ask(patient: Patient, name: str, *, bound: bool = True) -> list[Finding]:
    """Put one question, in a transaction that can change nothing.

    Args:
        bound: whether it waits for a lock no longer than a second; not where the settings themselves are looked at.
    """
    async with patient.connection.transaction(readonly=True):
        if bound:
            await patient.connection.execute(BOUND)
        rows = await patient.connection.fetch(questions()[name], patient.known)
    return [Finding(row["code"], row["level"], row["said"], row["cure"]) for row in rows]
