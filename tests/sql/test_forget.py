"""Forgetting the finished jobs of one type."""

import asyncpg
import pytest

from tests.heart import enqueue

AGES = {"old": "31 days", "young": "29 days"}


async def ended(connection: asyncpg.Connection, job_type: str, ago: str) -> int:
    job = await enqueue(connection, job_type)
    await connection.execute("select worker.cancel($1)", job)
    await connection.execute(
        "update worker.job_queue set finished_at = now() - $2::text::interval where id = $1", job, ago
    )
    return job


async def test_it_forgets_what_is_of_the_type_and_old_and_over(connection: asyncpg.Connection) -> None:
    old = [await ended(connection, "work", AGES["old"]) for _ in range(3)]
    kept = [
        await ended(connection, "work", AGES["young"]),
        await ended(connection, "other", AGES["old"]),
        await enqueue(connection, "work"),
    ]
    await connection.execute("update worker.job_queue set created_at = now() - interval '40 days'")
    assert await connection.fetchval("select worker.forget('work', '30 days', 2)") == 2
    assert await connection.fetchval("select worker.forget('work', '30 days')") == 1
    assert await connection.fetchval("select worker.forget('work', '30 days')") == 0
    left = [row[0] for row in await connection.fetch("select id from worker.job_queue order by id")]
    assert left == kept
    assert await connection.fetchval("select count(*) from worker.job_event where job_id = any ($1)", old) == 0


@pytest.mark.parametrize("role", ["worker_enqueue", "worker_tenant", "worker_read", "worker_run"])
async def test_only_operators_may(connection: asyncpg.Connection, role: str) -> None:
    await connection.execute(f"set role {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.fetchval("select worker.forget('work', '30 days')")
    await connection.execute("set role worker_operate")
    assert await connection.fetchval("select worker.forget('work', '30 days')") == 0
