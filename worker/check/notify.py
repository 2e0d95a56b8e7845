"""Notifications: one sent from another connection must arrive."""

import asyncio
import secrets

from worker.check.finding import Finding, ok, warning
from worker.check.patient import Patient
from worker.connection import connect

CHANNEL = "worker_check"
SECONDS = 2.0

_CURE = "set database.direct_url to a direct or session address; until then jobs start at the next poll"


async def look(patient: Patient) -> list[Finding]:
    if not patient.direct.keeps:  # to listen there leaves a trace on strangers' sessions
        return [warning("notifications.pooler", "none arrive through a transaction pooler", _CURE)]
    nonce, heard = secrets.token_hex(8), asyncio.Event()
    listener = await connect(patient.direct, "check", statement_timeout="10s")
    try:
        await listener.add_listener(CHANNEL, lambda *said: heard.set() if said[3] == nonce else None)
        began = asyncio.get_running_loop().time()
        await patient.connection.execute("select pg_notify($1, $2)", CHANNEL, nonce)
        try:
            async with asyncio.timeout(SECONDS):
                await heard.wait()
        except TimeoutError:
            return [warning("notifications.silent", f"none arrived within {SECONDS:g} s", _CURE)]
        took = (asyncio.get_running_loop().time() - began) * 1000
        return [ok("notifications", f"arrive, within {took:.0f} ms")]
    finally:
        await listener.close(timeout=2)
