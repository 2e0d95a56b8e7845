"""Connections: what one daemon needs, and what the server has left."""

from worker.check.finding import Finding, fault, ok, warning
from worker.check.patient import Patient
from worker.database import CONTROL_CONNECTIONS

ALONE = 2  # beat and listener
_ASK = """
    select least(
        current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
          - coalesce(current_setting('reserved_connections', true)::integer, 0),
        (select nullif(r.rolconnlimit, -1) from pg_roles r where r.rolname = current_user),
        (select nullif(d.datconnlimit, -1) from pg_database d where d.datname = current_database())) as most,
      (select count(*) from pg_stat_activity a
       where a.backend_type = 'client backend' and a.pid <> pg_backend_pid()) as used
"""


async def look(patient: Patient) -> list[Finding]:
    row = await patient.connection.fetchrow(_ASK)
    assert row is not None
    return [judged(patient.config.database.steps, row["most"], row["used"])]


def judged(steps: int, most: int, used: int) -> Finding:
    """What `most` connections, of which others use `used`, mean for a daemon with so many step connections."""
    need = steps + CONTROL_CONNECTIONS + ALONE
    said = f"a daemon takes up to {need} ({steps} for steps); the server gives {most}, {used} are taken"
    if need > most:
        return fault("connections", said, "lower database.steps, or raise max_connections or the role's limit")
    if need > most - used:
        return warning("connections", said, "end what is idle, lower database.steps, or raise max_connections")
    return ok("connections", said)
