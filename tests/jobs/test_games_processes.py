"""Game sync by real daemons: killed in mid-analysis, and two of them under one limit."""

import re
import signal
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from tests.heart import QUICK, becomes, until
from tests.jobs import games
from tests.jobs.games import ENGINE, config, counts, needs_engine, seen, some, start, user
from tests.processes import fleet
from worker.demo.platforms import Platforms

# The real engine; each game that it is given stands in a file.
TELLING = """#!/bin/sh
while read -r line; do
  [ "$line" = ucinewgame ] && echo "$$" >> {log}
  echo "$line"
  [ "$line" = quit ] && exit
done | {engine}
"""
ANALYSED = "select count(*) from games.analysis"


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await games.install(connection)
    return connection


def telling(folder: Path) -> tuple[str, Path]:
    """An engine that tells, and where."""
    engine, log = folder / "engine", folder / "games.log"
    engine.write_text(TELLING.format(log=log, engine=ENGINE), encoding="utf-8")
    engine.chmod(0o755)
    return str(engine), log


@needs_engine
async def test_killed_in_mid_analysis_no_finished_game_is_repeated(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    engine, log = telling(tmp_path)
    played = some(40)
    platforms.add("lichess", "Ann", played)
    # No deep looks: one new game to the engine is one game analysed.
    settings = {"engine": engine, "engines": 2, "batch": 4, "swing": 5_000, "quick_every": 1, "quick_nodes": 2_000}
    path = config(tmp_path, platforms, settings=settings)
    with fleet(tmp_path, dsn) as daemons:
        first = daemons.start(path)
        made = await start(db, await user(db))
        await until(db, f"select ({ANALYSED}) >= 8", seconds=60)
        first.kill()
        done = {tuple(row) for row in await db.fetch("select game_id, made_at, nodes from games.analysis")}
        before = len(log.read_text().splitlines())
        asked = len(platforms.calls)
        assert 8 <= len(done) < 40
        daemons.start(path)
        await until(db, "select status = 'completed' from worker.jobs where id = $1", made["job_id"], seconds=90)
    assert await counts(db, made["sync_id"]) == {"found": 40, "pending": 0, "done": 40, "skipped": 0, "failed": 0}
    after = {tuple(row) for row in await db.fetch("select game_id, made_at, nodes from games.analysis")}
    assert done <= after
    again = len(log.read_text().splitlines()) - before
    assert again == 40 - len(done), "a finished game was analysed again, or one was left out"
    assert len(platforms.calls) == asked, "what was fetched was fetched again"
    assert (await seen(db, made["sync_id"]))["percent"] == 100
    events = {row[0] for row in await db.fetch("select event from worker.history where job_id = $1", made["job_id"])}
    assert {"enqueued", "claimed", "rescue", "completed"} <= events


@needs_engine
async def test_a_limit_shared_by_two_daemons_is_never_exceeded(
    db: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    """Six users at once, each page of each a request: the platform itself counts, and never has to say 429."""
    most, seconds = 8, 2.0
    rates = f'[rate.lichess]\nlimit = {most // 2}\nper = "{seconds:g}s"\n[rate.chess_com]\nlimit = 9\nper = "1s"\n'
    async with Platforms({"lichess": (most, seconds)}) as platforms:
        # Two at a time each, so that neither can take all.
        path = config(
            tmp_path, platforms, rates=rates, settings={"page": 5}, worker=f"{QUICK}\nconcurrency = 2\nprefetch = 0"
        )
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub("(?m)^rate = .*$", "", text), encoding="utf-8")
        with fleet(tmp_path, dsn) as daemons:
            for _ in range(2):
                daemons.start(path)
            for number in range(6):
                platforms.add("lichess", f"player{number}", some(8, f"player{number}", seed=number))
                await start(db, await user(db, lichess=f"player{number}"))
            await until(db, "select count(*) = 6 from worker.jobs where status = 'completed'", seconds=90)
            ran = {row[0] for row in await db.fetch("select distinct claimed_by from worker.jobs")}
        assert platforms.refused == 0
        assert platforms.most_in("lichess", seconds) <= most
        assert len(platforms.times["lichess"]) == 12
        assert len(ran) == 2, "one daemon did it all"


async def test_a_user_s_sixth_start_waits_and_is_not_refused(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", [])
    text = config(tmp_path, platforms).read_text(encoding="utf-8")
    assert 'rate = { limit = 5, per = "10m", key = "{tenant_id}" }' in text
    path = config(tmp_path, platforms)
    with fleet(tmp_path, dsn) as daemons:
        daemons.start(path)
        who, other = await user(db), await user(db)
        for _ in range(5):
            made = await start(db, who)
            await until(db, "select status = 'completed' from worker.jobs where id = $1", made["job_id"])
        sixth = await start(db, who)
        await until(db, "select code = 'rate_limited' from worker.explain_job($1)", sixth["job_id"])
        made = await start(db, other)
        await until(db, "select status = 'completed' from worker.jobs where id = $1", made["job_id"])
        assert (await seen(db, sixth["sync_id"]))["status"] == "pending"


@needs_engine
async def test_cancel_ends_the_engine_too(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(10))
    path = config(tmp_path, platforms, settings={"quick_every": 1, "quick_nodes": 5_000_000, "search_seconds": 600})
    with fleet(tmp_path, dsn) as daemons:
        daemon = daemons.start(path)
        made = await start(db, await user(db))
        engines = await engines_of(daemon.pid)
        await db.fetchval("select games.fix($1, 'enough')", made["sync_id"])
        await until(db, "select status = 'cancelled' from worker.jobs where id = $1", made["job_id"])
        assert [pid for pid in engines if runs(pid)] == []
    assert (await seen(db, made["sync_id"]))["error"] == "cancelled: enough"


@needs_engine
async def test_a_stop_in_mid_analysis_hands_the_sync_back_and_ends_the_engines(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(6))
    endless = {"quick_every": 1, "quick_nodes": 5_000_000, "search_seconds": 600}
    path = config(tmp_path, platforms, settings=endless, worker=QUICK.replace('grace = "10s"', 'grace = "200ms"'))
    with fleet(tmp_path, dsn) as daemons:
        first = daemons.start(path)
        made = await start(db, await user(db))
        engines = await engines_of(first.pid)
        first.send(signal.SIGTERM)
        assert first.ends() == 0
        assert [pid for pid in engines if runs(pid)] == []
        job = await db.fetchrow("select status, attempt from worker.jobs where id = $1", made["job_id"])
        assert tuple(job) == ("pending", 0)
        daemons.start(config(tmp_path, platforms))
        await until(db, "select status = 'completed' from worker.jobs where id = $1", made["job_id"], seconds=60)
    assert (await counts(db, made["sync_id"]))["done"] == 6


async def engines_of(pid: int) -> list[int]:
    """The engines of a daemon, once it has some."""
    found: list[int] = []
    await becomes(lambda: found.extend(below(pid)) or found, seconds=40)
    return found


def below(pid: int) -> list[int]:
    """Engines that this process's children run."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            head, _, rest = path.read_text().rpartition(")")
            found[int(path.parent.name)] = (head, int(rest.split()[1]))
    return [
        each for each, (name, parent) in found.items() if "stockfish" in name and found.get(parent, ("", 0))[1] == pid
    ]


def runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
