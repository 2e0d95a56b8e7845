"""The server: its version, its encoding, and whether it may be written to."""

from worker.check.finding import Finding, fault, ok
from worker.check.patient import Patient

OLDEST = 150000
_ASK = """
    select current_setting('server_version') as version, current_setting('server_version_num')::integer as number,
      current_setting('server_encoding') as encoding, current_database() as name, session_user::text as login,
      pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean as read_only
"""


async def look(patient: Patient) -> list[Finding]:
    row = await patient.connection.fetchrow(_ASK)
    assert row is not None
    found = [ok("database", f"{row['name']} as {row['login']}, PostgreSQL {row['version']}")]
    if row["number"] < OLDEST:
        found.append(fault("database", f"PostgreSQL {row['version']} is too old", "use PostgreSQL 15 or newer"))
    if row["encoding"] != "UTF8":
        found.append(fault("database", f"its encoding is {row['encoding']}", "create it with encoding 'UTF8'"))
    if row["read_only"]:
        found.append(fault("database", "it is read-only", "name the primary server in database.url, not a replica"))
    return found
