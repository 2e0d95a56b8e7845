"""docs/systems/moving-over.md as a drill: phase by phase, and the rollback, with a real daemon and the old route."""

from pathlib import Path

import asyncpg
import pytest

from tests.heart import configured, daemon, enqueue, row, until
from worker.demo.receiver import Receiver

OLD_WAY = """
[job.stats_update]
enabled = {enabled}
fallback = "{url}"
headers = {{ Authorization = "Bearer key" }}
sources = {{ match = {match}, admin = {admin}, nightly = {nightly} }}
steps = {{ all_time = {{ sql = "note" }} }}
"""
WORKER = 'poll = "1s"\nbeat = "100ms"\nenabled = {master}'
ENDED = "select not exists (select from worker.job_queue where finished_at is null)"


@pytest.fixture
async def new_way(connection: asyncpg.Connection) -> asyncpg.Connection:
    await connection.execute("create table ran (at timestamptz default now())")
    await connection.execute("create function note() returns void language sql as 'insert into ran default values'")
    return connection


def asked(source: str) -> dict[str, object]:
    return {"tags": [source], "source": source, "requestId": "r"}


async def through(
    connection: asyncpg.Connection,
    dsn: str,
    folder: Path,
    *sources: str,
    master: bool = True,
    enabled: bool = True,
    **on: bool,
) -> tuple[list[str], list[asyncpg.Record]]:
    """Which way jobs of these sources went under these flags, and their rows."""
    flags = {name: str(on.get(name, False)).lower() for name in ("match", "admin", "nightly")}
    async with Receiver("key") as old_way:
        text = OLD_WAY.format(url=old_way.url, enabled=str(enabled).lower(), **flags)
        config = configured(folder, dsn, text, worker=WORKER.format(master=str(master).lower()))
        before = await connection.fetchval("select count(*) from ran")
        async with daemon(config):
            ids = [await enqueue(connection, "stats_update", asked(source), source=source) for source in sources]
            await until(connection, ENDED)
        posted = [call.json["source"] for call in old_way.calls]
        ran = await connection.fetchval("select count(*) from ran") - before
    rows = [await row(connection, id) for id in ids]
    assert len(posted) + ran == len(sources), "every job went exactly one way"
    return posted, rows


@pytest.mark.parametrize(
    ("phase", "old"),
    [
        ({}, ["admin", "nightly", "match"]),
        ({"admin": True}, ["nightly", "match"]),
        ({"admin": True, "nightly": True}, ["match"]),
        ({"admin": True, "nightly": True, "match": True}, []),
    ],
)
async def test_each_phase_moves_one_source(
    new_way: asyncpg.Connection, dsn: str, tmp_path: Path, phase: dict[str, bool], old: list[str]
) -> None:
    posted, rows = await through(new_way, dsn, tmp_path, "admin", "nightly", "match", **phase)
    assert sorted(posted) == sorted(old)
    assert [each["status"] for each in rows] == ["completed"] * 3
    assert [each["finish_reason"] == "fallback" for each in rows] == [
        name in old for name in ("admin", "nightly", "match")
    ]


@pytest.mark.parametrize("flags", [{"master": False}, {"enabled": False}])
async def test_rolled_back_by_one_flag_everything_goes_the_old_way(
    new_way: asyncpg.Connection, dsn: str, tmp_path: Path, flags: dict[str, bool]
) -> None:
    on = {"admin": True, "nightly": True, "match": True}
    posted, _ = await through(new_way, dsn, tmp_path, "admin", "match", **on)
    assert posted == []
    posted, rows = await through(new_way, dsn, tmp_path, "admin", "match", **on, **flags)
    assert sorted(posted) == ["admin", "match"]
    assert {each["finish_reason"] for each in rows} == {"fallback"}
    assert (
        await new_way.fetchval("select count(*) from worker.job_step where job_id = any ($1)", [r["id"] for r in rows])
        == 0
    )


async def test_without_a_fallback_what_is_off_waits_or_is_skipped(
    new_way: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    lines = OLD_WAY.format(url="", enabled="true", match="false", admin="true", nightly="true").splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("fallback", "headers")))
    async with daemon(configured(tmp_path, dsn, text)):
        off = await enqueue(new_way, "stats_update", source="match")
        await until(new_way, ENDED)
    assert (await row(new_way, off))["finish_reason"] == "source_off"
    async with daemon(configured(tmp_path, dsn, text.replace("enabled = true", "enabled = false"))):
        waiting = await enqueue(new_way, "stats_update", source="admin")
        await until(new_way, "select count(*) > 0 from worker.process where stopped_at is null")
    assert (await row(new_way, waiting))["status"] == "pending"
