"""What the login may do: it must be the daemon, and should be no more."""

from worker.check.finding import Finding, fault, ok, warning
from worker.check.patient import Patient

_ASK = """
    select quote_ident(r.rolname) as login, r.rolsuper, r.rolbypassrls,
      to_regrole('worker_run') is not null and pg_has_role(r.oid, to_regrole('worker_run'), 'usage') as runs,
      to_regrole('worker_run') is not null and pg_has_role(r.oid, to_regrole('worker_run'), 'member') as member
    from pg_roles r where r.rolname = current_user
"""
_PATH = """
    select trim(part) as schema, n.oid is not null as exists,
      coalesce(has_schema_privilege(n.oid, 'usage'), false) as usable
    from string_to_table($1, ',') part left join pg_namespace n on n.nspname = trim(both ' "' from part)
    where trim(part) <> '"$user"'
"""


async def look(patient: Patient) -> list[Finding]:
    row = await patient.connection.fetchrow(_ASK)
    assert row is not None
    login = row["login"]
    if not row["runs"]:
        cure = f"alter role {login} inherit" if row["member"] else f"grant worker_run to {login}"
        found = [fault("rights", f"{login} has not the rights of worker_run", f"{cure};")]
    elif row["rolsuper"]:
        cure = "create a login of its own: create role my_worker login in role worker_run"
        found = [warning("rights", f"{login} is a superuser, and so is every step", cure)]
    else:
        found = [ok("rights", f"{login} may run the daemon")]
    return [*found, *await _search_path(patient, login)]


async def _search_path(patient: Patient, login: str) -> list[Finding]:
    found = []
    for row in await patient.connection.fetch(_PATH, patient.config.database.search_path):
        schema = row["schema"]
        if not row["exists"]:
            said = f"database.search_path names {schema}, which does not exist"
            found.append(fault("rights", said, "correct database.search_path in worker.toml, or create the schema"))
        elif not row["usable"]:
            found.append(
                fault(
                    "rights", f"{login} may not use the schema {schema}", f"grant usage on schema {schema} to {login};"
                )
            )
    return found
