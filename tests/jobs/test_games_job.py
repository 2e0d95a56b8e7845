"""The job type `sync_games` through the queue: a real engine, and platforms that page, refuse and break off."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.jobs import games
from tests.jobs.games import NOW, config, needs_engine, seen, some, start, user
from worker.demo.platforms import Platforms, Played
from worker.outcome import Completed, Skipped
from worker.testing import Bench, bench

pytestmark = needs_engine


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await games.install(connection)
    return connection


@pytest.fixture
async def at(db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms) -> AsyncIterator[Bench]:
    async with bench(dsn, config(tmp_path, platforms, settings={"page": 10})) as made:
        yield made


async def test_a_sync_from_lichess_from_start_to_end(at: Bench, db: asyncpg.Connection, platforms: Platforms) -> None:
    platforms.add("lichess", "Ann", some(25))
    who = await user(db)
    made = await start(db, who)
    came = await at.run(made["job_id"])
    assert came == Completed({"found": 25, "done": 25, "skipped": 0, "failed": 0})
    shown = await seen(db, made["sync_id"])
    assert [shown[name] for name in ("status", "games_found", "games_analyzed", "percent")] == [
        "completed",
        25,
        25,
        100,
    ]
    assert shown["completed_at"] is not None
    assert len(platforms.times["lichess"]) == 3, "25 games, ten a page"
    linked = await db.fetch("select distinct sync_id, job_id from games.analysis")
    assert [tuple(row) for row in linked] == [(made["sync_id"], made["job_id"])]
    assert await db.fetchval("select count(*) from games.analysis") == 25
    assert (await at.job(made["job_id"]))["progress"]["percent"] == 100
    transitions = await db.fetch("select event from worker.history where job_id = $1 order by id", made["job_id"])
    assert [row[0] for row in transitions] == ["enqueued", "claimed", "completed"]


async def test_what_is_analysed_is_skipped_by_the_next(at: Bench, db: asyncpg.Connection, platforms: Platforms) -> None:
    played = some(12)
    platforms.add("lichess", "Ann", played[2:])
    who = await user(db)
    await at.run((await start(db, who))["job_id"])
    platforms.add("lichess", "Ann", played)
    again = await start(db, who)
    assert await at.run(again["job_id"]) == Completed({"found": 12, "done": 2, "skipped": 10, "failed": 0})
    assert (await seen(db, again["sync_id"]))["games_analyzed"] == 12
    assert await db.fetchval("select count(*) from games.analysis where sync_id = $1", again["sync_id"]) == 2


async def test_a_sync_from_chess_com_takes_the_months_of_its_span(
    at: Bench, db: asyncpg.Connection, platforms: Platforms
) -> None:
    platforms.add("chess.com", "Ann", some(9, apart=30 * games.DAY))
    made = await start(db, await user(db), "chess.com", months=4)
    came = await at.run(made["job_id"])
    assert isinstance(came, Completed)
    assert came.result == {"found": 4, "done": 4, "skipped": 0, "failed": 0}
    paths = [call.path for call in platforms.calls]
    assert paths[0] == "/pub/player/ann/games/archives"
    assert 4 <= len(paths) - 1 <= 5
    assert paths[1:] == sorted(paths[1:])


async def test_filters_decide_what_is_found(at: Bench, db: asyncpg.Connection, platforms: Platforms) -> None:
    played = some(30)
    platforms.add("lichess", "Ann", played)
    made = await start(db, await user(db), filters={"kind": ["blitz", "rapid"], "colour": "white", "result": "draw"})
    came = await at.run(made["job_id"])
    wanted = [game for game in played if game.kind != "bullet" and (game.white, game.result) == ("Ann", "1/2-1/2")]
    assert isinstance(came, Completed)
    assert came.result["found"] == len(wanted) > 0


async def test_a_game_that_is_left_out_is_not_taken_for_the_end(
    at: Bench, db: asyncpg.Connection, platforms: Platforms
) -> None:
    others = Played("Ben", "Cem", NOW - 20 * games.DAY, "1-0", "1. e4 1-0")  # on the first page
    platforms.add("lichess", "Ann", [others, *some(15)])
    made = await start(db, await user(db))
    assert await at.run(made["job_id"]) == Completed({"found": 15, "done": 15, "skipped": 0, "failed": 0})


async def test_no_games_are_no_failure(at: Bench, db: asyncpg.Connection, platforms: Platforms) -> None:
    platforms.add("lichess", "Ann", [])
    made = await start(db, await user(db))
    assert await at.run(made["job_id"]) == Completed({"found": 0, "done": 0, "skipped": 0, "failed": 0})


async def test_a_sync_that_is_gone_is_skipped(at: Bench, db: asyncpg.Connection) -> None:
    made = await start(db, await user(db))
    await db.execute("delete from games.player")
    assert isinstance(await at.run(made["job_id"]), Skipped)


async def test_more_games_than_one_sync_takes_are_left_to_the_next(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(25))
    who = await user(db)
    async with bench(dsn, config(tmp_path, platforms, settings={"page": 10, "most_games": 12})) as at:
        made = await start(db, who)
        assert await at.run(made["job_id"]) == Completed({"found": 12, "done": 12, "skipped": 0, "failed": 0})
        assert await db.fetchval("select capped from games.sync")
        made = await start(db, who)
        assert await at.run(made["job_id"]) == Completed({"found": 24, "done": 12, "skipped": 12, "failed": 0})
        made = await start(db, who)
        assert await at.run(made["job_id"]) == Completed({"found": 25, "done": 1, "skipped": 24, "failed": 0})
    assert not await db.fetchval("select capped from games.sync where id = $1", made["sync_id"])
