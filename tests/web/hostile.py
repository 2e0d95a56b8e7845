"""Jobs with one text in all of their fields, as a producer with every right, or a handler, may leave them."""

import asyncpg
import orjson

from tests.browser.corpus import HOSTILE

JOB = """
    insert into worker.job_queue (job_type, payload, status, queued, trouble, priority, scheduled_at, attempt,
      max_attempts, unique_key, concurrency_key, tenant_id, enqueued_by, correlation_id, source, phase, progress,
      result, errors, finish_reason, cancel_reason, parent_id, claim, claimed_by, created_at, started_at, finished_at)
    values ('sync_orders', $1, $2, $2 = 'pending', $2 = 'failed', 100, now(), 1, 5, $3, $3, $4, $5, $4, $4, $4, $6, $6,
      $7, $5, $5, $8, 1, 1, now(), now(), case when $2 = 'failed' then now() end)
    returning id
"""
STEPS = """
    insert into worker.job_step (job_id, name, status, attempt, claim, started_at, finished_at, error, result) values
      ($1, $2, 'failed', 2, 1, now(), now(), $3, $4), ($1, 'b', 'running', 1, 1, now(), null, $3, $4)
"""
EVENT = "insert into worker.job_event (job_id, event, actor, detail) values ($1, $2, $2, $3)"
FORGET = "delete from worker.job_queue where id = any ($1)"


def cut(text: str, most: int) -> str:
    """As much of it as a column takes, in bytes."""
    return text.encode()[:most].decode(errors="ignore")


async def spoil(connection: asyncpg.Connection, text: str = HOSTILE) -> list[int]:
    """A failed, a running and a pending job, their steps and events, schedules, daemons; answers with the jobs."""
    await connection.execute("set session_replication_role = replica")
    payload = orjson.dumps({cut(text, 900): text, "list": [text, {"x": text}]}).decode()
    errors = [{"attempt": n, "at": "2026-11-22T12:00:00Z", "message": text} for n in (1, 2)]
    jobs: list[int] = []
    for status in ("failed", "running", "pending"):
        keys = (cut(text, 480), cut(text, 190), cut(text, 900))
        rest = (payload, orjson.dumps(errors).decode(), jobs[0] if jobs else None)
        jobs.append(await connection.fetchval(JOB, payload, status, *keys, *rest))
    for job in jobs[:2]:
        await connection.execute(STEPS, job, cut(text, 95), text, payload)
        await connection.execute(EVENT, job, text, payload)
    await connection.execute("update worker.schedule set error = $1, for_each = $1, zone = $1, failures = 3", text)
    await connection.execute("update worker.process set host = $1, version = $1", text)
    await connection.execute("set session_replication_role = origin")
    return jobs


async def forget(connection: asyncpg.Connection, jobs: list[int]) -> None:
    """As if they had never been."""
    await connection.execute("delete from worker.job_event where job_id = any ($1)", jobs)
    await connection.execute(FORGET, jobs)
