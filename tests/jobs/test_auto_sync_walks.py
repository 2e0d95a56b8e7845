"""Random walks: organizers do what they like, jobs run when they are due, and some things always hold."""

import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from tests.heart import write_config
from tests.jobs.crews import DAY, JOBS, START, begin, install, jobs, number, one
from worker.testing import Bench, bench

STEPS = 60
MOVES = (
    "run",
    "run",
    "run",
    "run",
    "pass",
    "answer",
    "pause",
    "remind and go on",
    "go on",
    "end",
    "start again",
    "option",
)


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await install(connection)
    return connection


@pytest.fixture
async def at(db: asyncpg.Connection, dsn: str, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(dsn, write_config(tmp_path, JOBS)) as made:
        yield made


class Walk:
    """One sync and what happens to it."""

    def __init__(self, at: Bench, sync: UUID, chance: random.Random) -> None:
        self.at = at
        self.db = at.connection
        self.sync = sync
        self.chance = chance
        self.now: datetime = START
        self.moves: list[str] = []

    async def move(self) -> None:
        self.moves.append(self.chance.choice(MOVES))
        status = (await one(self.db, self.sync))["status"]
        match self.moves[-1]:
            case "run":
                await self.run()
            case "pass":
                await self.at_(self.now + timedelta(hours=self.chance.choice([1, 7, 30])))
            case "answer":
                await self.answer(number(self.chance.randint(1, 3)))
            case "pause" if status == "running":
                await self.set("status = 'paused'")
            case "remind and go on" if status == "paused":
                await self.set("status = 'running', last_reminder_sent_at = worker.now()")
            case "go on" if status == "paused":
                await self.set("status = 'running'")
            case "end" if status in ("running", "paused") and self.chance.random() < 0.3:
                await self.set(f"status = '{self.chance.choice(['completed', 'stopped'])}'")
            case "start again" if status in ("completed", "stopped"):
                await self.option(self.now + 5 * DAY)
                await self.set("status = 'running', started_at = worker.now()")
            case "option":
                await self.option(self.now + timedelta(hours=self.chance.randint(1, 200)))

    async def run(self) -> None:
        """The job that is due next, when it is due."""
        live = [job for job in await jobs(self.db, self.sync) if not job["finished_at"]]
        if live:
            job = min(live, key=lambda job: job["scheduled_at"])
            await self.at_(max(self.now, job["scheduled_at"]))
            await self.at.run(job["id"])

    async def at_(self, now: datetime) -> None:
        self.now = await self.at.stop_clock(now)

    async def set(self, columns: str) -> None:
        await self.db.execute(f"update auto_sync.auto_syncs set {columns} where id = $1", self.sync)

    async def answer(self, phone: str) -> None:
        await self.db.execute(
            "insert into auto_sync.auto_sync_responses (auto_sync_id, contact_id, response_type)"
            " select $1, id, 'available' from auto_sync.contacts where phone = $2 on conflict do nothing",
            self.sync, phone,
        )  # fmt: skip

    async def option(self, end: datetime) -> None:
        await self.db.execute(
            "insert into auto_sync.auto_sync_options (auto_sync_id, idx, start_time, end_time) values ($1, $2, $3, $3)"
            " on conflict (auto_sync_id, idx) do update set start_time = $3, end_time = $3",
            self.sync, self.chance.randint(1, 2), end,
        )  # fmt: skip

    async def always(self) -> None:
        status = (await one(self.db, self.sync))["status"]
        live = [job["job_type"] for job in await jobs(self.db, self.sync) if not job["finished_at"]]
        assert len(live) == len(set(live)), "two live jobs of a type"
        if status in ("completed", "stopped"):
            assert live == [], "a job of a sync that is over"
        elif status == "paused":
            assert live == ["auto_end_check"], "a paused sync only comes to its end"
        else:
            assert {"reminder_24h", "pause_check_48h"} & set(live), "a running sync that nothing ends"
            assert "auto_end_check" in live, "nobody looks at its options"
        late = "select count(*) from worker.jobs where last_error is not null or status = 'failed'"
        assert await self.db.fetchval(late) == 0
        twice = "select count(*) from auto_sync.auto_sync_messages where message_type = 'reminder' group by contact_id"
        cycles = await self.db.fetchval("select count(*) from auto_sync.cycles where reminded_at is not null")
        assert all(row["count"] <= cycles + 1 for row in await self.db.fetch(twice))


@pytest.mark.parametrize("seed", range(6))
async def test_walk(at: Bench, db: asyncpg.Connection, seed: int) -> None:
    await at.stop_clock(START)
    walk = Walk(at, await begin(db, 3), random.Random(seed))
    for _ in range(STEPS):
        await walk.move()
        try:
            await walk.always()
        except AssertionError as error:
            raise AssertionError(f"{error} after {walk.moves}") from None
    assert await db.fetchval("select auto_sync.mend()") == 0
