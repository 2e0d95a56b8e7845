"""What the tests of the cache webhook share: the shipped file's tags, questions about the queue, what was sent."""

import tomllib
import uuid
from pathlib import Path

import asyncpg
import orjson

from tests.support import ROOT
from worker.config import Config, load
from worker.demo.receiver import Receiver

KEY = "a-key-of-the-tests"
STEPS = tomllib.loads((ROOT / "worker.toml").read_text(encoding="utf-8"))["job"]["stats_update"]["steps"]
TAGS = {tag for step in STEPS.values() for tag in step["tags"]}
QUIET = "select not exists (select from worker.job_queue where status in ('pending', 'running'))"
STATS_DONE = f"{QUIET[:-1]} and job_type = 'stats_update')"
FAR = "scheduled_at > now() + interval '5 minutes'"


def loaded(path: Path, dsn: str, receiver: Receiver) -> Config:
    return load(path, {"DATABASE_URL": dsn, "APP_URL": receiver.origin, "INTERNAL_API_KEY": KEY})


async def jobs(connection: asyncpg.Connection, job_type: str) -> list[asyncpg.Record]:
    return await connection.fetch("select * from worker.job_queue where job_type = $1 order by id", job_type)


async def assert_stats_ran_once(connection: asyncpg.Connection, jobs_expected: int = 1) -> None:
    """Each at its first attempt, and none more than were asked for."""
    found = await jobs(connection, "stats_update")
    assert [(job["status"], job["attempt"]) for job in found] == [("completed", 1)] * jobs_expected


def sent(receiver: Receiver) -> list[set[str]]:
    return [set(call.json["tags"]) for call in receiver.calls]


async def breaks(connection: asyncpg.Connection, table: str) -> None:
    """Writes to this table fail until `mended`."""
    await connection.execute(
        f"""
        create function break() returns trigger language plpgsql as
          $$ begin raise exception 'the disk is full'; end $$;
        create trigger break before insert or update or delete on club.{table}
        for each statement execute function break();
        """
    )


async def mended(connection: asyncpg.Connection) -> None:
    await connection.execute("drop function break() cascade")


async def enqueued(connection: asyncpg.Connection, tenant: uuid.UUID, tags: list[list[str]]) -> None:
    """Webhook jobs as finished stats jobs leave them."""
    payloads = [orjson.dumps({"tags": each}).decode() for each in tags]
    await connection.execute(
        "insert into worker.job_queue (job_type, payload, tenant_id)"
        " select 'invalidate_cache', payload::jsonb, $2 from unnest($1::text[]) payload",
        payloads,
        str(tenant),
    )
