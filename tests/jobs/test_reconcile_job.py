"""The job type `reconcile`: through the queue, as the docs declare it, and killed in mid-apply."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.heart import DEADLINE, configured, enqueue, until, write_config
from tests.jobs import league
from tests.jobs.league import collect, digest, season
from tests.processes import fleet
from tests.support import ROOT, free_port
from worker.outcome import Completed, Failed, Outcome
from worker.service import run
from worker.stop import Stop
from worker.testing import bench
from worker.web import Web

PAGE = (ROOT / "docs" / "systems" / "reconcile.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
DECLARED = "\n".join(block for block in _BLOCKS if block.startswith("[job."))
SCHEDULED = "\n".join(_BLOCKS)
SLOW = """
create sequence naps;
create function nap() returns trigger language plpgsql as
  $$ begin if nextval('public.naps') = 1 then perform pg_sleep(5); end if; return null; end $$;
create trigger slow after insert on league.season_progress for each row when (new.competition_id = 'Z')
  execute function nap();
"""
ASLEEP = "select count(*) = 1 from pg_stat_activity where wait_event = 'PgSleep'"


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await league.install(connection)
    return connection


async def outcome(dsn: str, folder: Path, payload: Any, declared: str = DECLARED) -> Outcome:
    async with bench(dsn, write_config(folder, declared)) as at:
        return await at.run(await at.enqueue("reconcile", payload))


async def test_the_job_corrects_and_its_result_has_the_drift(db: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
    await collect(db, "EPL")
    await season(db, "GHOST", "1999", "completed")
    came = await outcome(dsn, tmp_path, {})
    assert isinstance(came, Completed)
    assert came.result == {
        "execute": True, "competition": None, "found": True, "in_sync": False, "drift": 4, "fixed": 3,
        "counts": {
            "competitions": {"add": 1, "update": 0, "held": 0, "unproven": 0},
            "seasons": {"add": 2, "update": 0, "held": 0, "unproven": 1},
        },
    }  # fmt: skip
    again = await outcome(dsn, tmp_path, {"competition": "EPL"})
    assert isinstance(again, Completed)
    assert (again.result["in_sync"], again.result["drift"]) == (True, 0)
    assert await db.fetchval("select progress from worker.jobs order by id limit 1") == '{"done": 2, "total": 2}'


@pytest.mark.parametrize(
    ("declared", "payload"),
    [(DECLARED, {"execute": False}), ('[job.reconcile]\npython = "worker.jobs.reconcile:reconcile"', {})],
)
async def test_it_only_looks_unless_told_to_execute(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, declared: str, payload: Any
) -> None:
    await collect(db, "EPL")
    before = await digest(db)
    came = await outcome(dsn, tmp_path, payload, declared)
    assert isinstance(came, Completed)
    assert (came.result["drift"], came.result["fixed"]) == (3, 0)
    assert await digest(db) == before


@pytest.mark.parametrize("payload", [{"compettition": "EPL"}, {"execute": "yes"}, {"competition": 7}, ["EPL"]], ids=str)
async def test_a_payload_that_asks_for_something_else_fails_for_good(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, payload: Any
) -> None:
    came = await outcome(dsn, tmp_path, payload)
    assert isinstance(came, Failed)
    assert await db.fetchval("select finish_reason from worker.jobs") == "invalid"


async def test_kill_in_mid_apply_leaves_nothing_half_done_and_the_next_does_it_all(
    db: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    await league.many(db, 600, seasons=1, clubs=1)
    await collect(db, "Z")
    await db.execute(SLOW)
    before = await digest(db)
    config = write_config(tmp_path, DECLARED)
    with fleet(tmp_path, dsn) as daemons:
        first = daemons.start(config)
        job = await enqueue(db, "reconcile")
        await until(db, ASLEEP, seconds=60)
        first.kill()
        assert await digest(db) == before
        daemons.start(config)
        await until(db, "select status = 'completed' from worker.jobs where id = $1", job, seconds=90)
    assert await league.plan(db) == []
    assert await db.fetchval("select count(*) from league.competition_progress") == 601
    unproven = "select count(*) from league.competition_progress where not league.has_teams(competition_id)"
    assert await db.fetchval(unproven) == 0


async def test_by_the_clock_and_the_drift_is_a_metric(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.parts.RESULTS_EVERY", 0.1)
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    await collect(db, "EPL")
    await db.execute("select worker.set_clock($1)", noon)
    port = free_port()
    config = configured(tmp_path, dsn, f'{SCHEDULED}\n[http]\nlisten = "127.0.0.1:{port}"')
    assert config.http is not None
    stop = Stop()
    running = asyncio.create_task(run(config, stop, web=Web(config.http)))
    try:
        for quarter, drift in ((noon + timedelta(minutes=15), 3), (noon + timedelta(minutes=75), 0)):
            await until(db, "select next_at = $1 from worker.schedule", quarter)
            await db.execute("select worker.set_clock($1)", quarter)
            await until(
                db, "select count(*) = 1 from worker.jobs where status = 'completed' and scheduled_at = $1", quarter
            )
            await has_line(port, f'worker_job_result{{job_type="reconcile",name="drift"}} {drift:.1f}')
    finally:
        stop.ask()
        await running


async def has_line(port: int, line: str) -> None:
    """Scraped, sooner or later."""
    async with asyncio.timeout(DEADLINE), httpx2.AsyncClient() as client:
        while line not in (await client.get(f"http://127.0.0.1:{port}/metrics")).text:  # noqa: ASYNC110 - a scrape announces nothing
            await asyncio.sleep(0.05)
