"""The shipped systems that are installed in this database: each says itself how it is."""

from worker.check.finding import Finding
from worker.check.patient import Patient

# A system that is not installed is no fault. The function must belong to somebody who may own the queue's objects: one
# that another made under this name would run here with the rights of whoever asks.
_THERE = """
    select exists (select from pg_proc p where p.oid = to_regprocedure($1)
      and pg_has_role(p.proowner, 'worker_owner', 'member')
      and has_function_privilege(p.oid, 'execute') and has_schema_privilege(p.pronamespace, 'usage'))
"""
SYSTEMS = {
    "auto_sync": ("auto_sync.check()", "select level, said, cure from auto_sync.check()"),
    "games": ("games.check()", "select level, said, cure from games.check()"),
    "sync": ("sync.check()", "select level, said, cure from sync.check()"),
}


async def look(patient: Patient) -> list[Finding]:
    found = []
    for system, (function, question) in SYSTEMS.items():
        if await patient.connection.fetchval(_THERE, function):
            rows = await patient.connection.fetch(question)
            found += [Finding(system, row["level"], row["said"], row["cure"]) for row in rows]
    return found
