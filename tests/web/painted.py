"""A database with an ordinary evening in it."""

import asyncpg
import orjson

from tests.browser.world import SCENE
from worker.config import Config


async def paint(connection: asyncpg.Connection, config: Config) -> None:
    """Types and schedules as declared, jobs in every state, failures, daemons, and what was counted."""
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(config.declarations()).decode())
    timed = orjson.dumps(config.timed()).decode()
    await connection.fetch("select * from worker.declare_schedules($1::jsonb, $2)", timed, list(config.job))
    await connection.execute(SCENE)
    await connection.execute("set session_replication_role = origin")
