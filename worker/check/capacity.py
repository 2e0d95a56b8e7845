"""Connections: what daemons need, and what the server has left."""

from worker.check.finding import Finding, fault, ok, warning
from worker.check.patient import Patient
from worker.check.questions import questions
from worker.database import CONTROL_CONNECTIONS

ALONE = 2  # beat and listener


async def look(patient: Patient) -> list[Finding]:
    row = await patient.connection.fetchrow(questions()["connections"])
    assert row is not None
    return [judged(patient.config.database.steps, row["most"], row["used"], row["alive"])]


def judged(steps: int, most: int, used: int, alive: int = 0) -> Finding:
    """What `most` connections, of which others use `used`, mean beside the daemons that are alive.

    Args:
        steps: step connections of one daemon; the others are taken to have as many.
    """
    need = steps + CONTROL_CONNECTIONS + ALONE
    others = f", those of {alive} alive up to {alive * need}" if alive else ""
    said = (
        f"a daemon takes up to {need} ({steps} for steps){others}; the server gives {most}, {used} are taken by others"
    )
    if need > most:
        return fault("connections.most", said, "lower database.steps, or raise max_connections or the role's limit")
    if need * (alive + 1) > most - used:
        return warning(
            "connections.left",
            said,
            "end what is idle, lower database.steps, or raise max_connections or the role's limit",
        )
    return ok("connections", said)
