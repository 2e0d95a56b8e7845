"""The first system's words over the queue: reading and inserting."""

import json
import uuid

import asyncpg
import pytest

from tests.jobs.stats_database import SQL

TENANT = str(uuid.UUID(int=7))


@pytest.fixture
async def club(connection: asyncpg.Connection) -> asyncpg.Connection:
    for path in sorted(SQL.glob("*.sql")):
        await connection.execute(path.read_text(encoding="utf-8"))
    return connection


async def insert(club: asyncpg.Connection, payload: dict[str, object], priority: int | None = None) -> asyncpg.Record:
    row = await club.fetchrow(
        "insert into club.background_job_status (job_payload, priority) values ($1, $2) returning id, status",
        json.dumps(payload), priority,
    )  # fmt: skip
    assert row is not None
    return row


async def job(club: asyncpg.Connection, id: str) -> asyncpg.Record:
    row = await club.fetchrow("select * from worker.job_queue where id = $1", int(id))
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("by", "priority", "source", "expected"),
    [
        ("post-match", 2, "match", 50),
        ("admin", 1, "admin", 100),
        ("cron", 1, "nightly", 200),
        ("admin", None, "admin", 100),
    ],
)
async def test_an_insert_is_an_enqueue(
    club: asyncpg.Connection, by: str, priority: int | None, source: str, expected: int
) -> None:
    row = await insert(club, {"triggeredBy": by, "requestId": "r", "tenantId": TENANT}, priority)
    made = await job(club, row["id"])
    assert row["status"] == "queued"
    assert (made["source"], made["priority"], made["correlation_id"], made["tenant_id"]) == (
        source,
        expected,
        "r",
        TENANT,
    )


@pytest.mark.parametrize(
    ("status", "old"),
    [("pending", "queued"), ("running", "processing"), ("completed", "completed"), ("skipped", "completed"),
     ("failed", "failed"), ("cancelled", "failed")],
)  # fmt: skip
async def test_statuses_in_the_old_words(club: asyncpg.Connection, status: str, old: str) -> None:
    await club.execute(
        "insert into worker.job_queue (job_type, status, queued, trouble, claim, started_at, finished_at)"
        " values ('stats_update', $1, $1 = 'pending', $1 in ('failed', 'cancelled'), 1, now(),"
        " case when $1 not in ('pending', 'running') then now() end)",
        status,
    )
    assert await club.fetchval("select status from club.background_job_status") == old


async def test_results_name_each_function(club: asyncpg.Connection) -> None:
    row = await insert(club, {"tenantId": TENANT})
    await club.execute(
        "insert into worker.job_step (job_id, name, status, claim, started_at, finished_at, error) values"
        " ($1, 'all_time', 'completed', 1, now(), now() + interval '120 ms', null),"
        " ($1, 'season_race', 'failed', 1, now() + interval '1 s', now() + interval '2 s', 'broken')",
        int(row["id"]),
    )
    results = json.loads(await club.fetchval("select results from club.background_job_status"))
    assert results == {
        "total_functions": 2, "successful_functions": 1, "failed_functions": 1, "cache_invalidation_success": None,
        "function_results": [
            {"function": "all_time", "status": "success", "duration": 120},
            {"function": "season_race", "status": "failed", "duration": 1000, "error": "broken"},
        ],
    }  # fmt: skip


async def test_retry_of_opens_the_old_job_again(club: asyncpg.Connection) -> None:
    row = await insert(club, {"tenantId": TENANT})
    await club.execute("select worker.cancel($1)", int(row["id"]))
    again = await insert(club, {"retryOf": row["id"]})
    assert (again["id"], again["status"]) == (row["id"], "queued")
    assert await club.fetchval("select count(*) from worker.job_queue") == 1


async def test_only_stats_jobs_are_shown(club: asyncpg.Connection) -> None:
    await club.execute("select worker.enqueue('something_else')")
    assert await club.fetchval("select count(*) from club.background_job_status") == 0


async def test_row_security_holds_in_the_old_words_too(club: asyncpg.Connection) -> None:
    """A tenant sees its own jobs, by whatever page reads them."""
    await insert(club, {"tenantId": TENANT})
    await insert(club, {"tenantId": str(uuid.UUID(int=8))})
    async with club.transaction():
        await club.execute("create role reader_of_the_old_words in role worker_tenant")
        await club.execute("grant usage on schema club to reader_of_the_old_words")
        await club.execute("grant select on club.background_job_status to reader_of_the_old_words")
        await club.execute("set local role reader_of_the_old_words")
        await club.execute("select set_config('request.jwt.claims', $1, true)", json.dumps({"tenant_id": TENANT}))
        seen = await club.fetch("select tenant_id, results from club.background_job_status")
        await club.execute("reset role; drop owned by reader_of_the_old_words; drop role reader_of_the_old_words")
    assert [row["tenant_id"] for row in seen] == [TENANT]
