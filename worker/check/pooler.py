"""Poolers: the backend named in the handshake is not the one that answers."""

from worker.check.finding import Finding, fault, info, ok
from worker.check.patient import Patient
from worker.database import connect

_CURE = "set database.direct_url to the address of the server itself, or of a session pooler"


async def look(patient: Patient) -> list[Finding]:
    seen = patient.connection.get_server_pid(), await patient.connection.fetchval("select pg_backend_pid()")
    if patient.direct == patient.url:
        return [judged(seen, None)]
    connection = await connect(patient.direct, "check", statement_timeout="10s")
    try:
        direct = connection.get_server_pid(), await connection.fetchval("select pg_backend_pid()")
    finally:
        await connection.close(timeout=5)
    return [judged(seen, direct)]


def judged(url: tuple[int, int], direct: tuple[int, int] | None) -> Finding:
    """From (pid of the handshake, pid that answers) of database.url and, where it is set, of database.direct_url."""
    pooled = url[0] != url[1]
    if direct is not None and direct[0] != direct[1]:
        return fault("pooler", "database.direct_url leads through a pooler", _CURE)
    if pooled and direct is None:
        return fault("pooler", "database.url leads through a pooler: no notifications, no cancel of steps", _CURE)
    if pooled:
        return info("pooler", "database.url leads through a pooler; beat, listener and steps go directly")
    return ok("pooler", "none on the way")
