"""What goes wrong in a sync: platforms that refuse, break off or fail, games and engines that are no good."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.jobs import games
from tests.jobs.games import ENGINE, NOW, config, counts, needs_engine, seen, some, start, user
from worker.demo.platforms import Platforms, Played, cut, export
from worker.demo.receiver import Reply
from worker.outcome import Completed, Failed, Retried, Snoozed
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


async def test_too_many_requests_put_it_off_as_long_as_they_say(
    at: Bench, db: asyncpg.Connection, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(15))
    platforms.fail("lichess", export(some(15), max="10", sort="dateAsc"), Reply(429, b"", {"retry-after": "7"}))
    made = await start(db, await user(db))
    assert await at.run(made["job_id"]) == Snoozed(7.0)
    assert (await counts(db, made["sync_id"]))["found"] == 10
    assert (await seen(db, made["sync_id"]))["status"] == "pending"
    await at.move_clock("8s")
    assert await at.run(made["job_id"]) == Completed({"found": 15, "done": 15, "skipped": 0, "failed": 0})
    assert (await at.job(made["job_id"]))["attempt"] == 1
    assert len(platforms.times["lichess"]) == 3, "what was there was asked for again"


@pytest.mark.parametrize(("headers", "seconds"), [({}, 1.0), ({"retry-after": "86400"}, 10.0)])
async def test_a_429_that_says_nothing_or_too_much(
    at: Bench, db: asyncpg.Connection, platforms: Platforms, headers: dict[str, str], seconds: float
) -> None:
    platforms.fail("lichess", Reply(429, b"", headers))
    assert await at.run((await start(db, await user(db)))["job_id"]) == Snoozed(seconds)


async def test_an_answer_that_breaks_off_is_asked_for_again(
    at: Bench, db: asyncpg.Connection, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(8))
    whole = export(some(8), sort="dateAsc")
    platforms.fail("lichess", cut(whole, 2000), cut(whole, 0))
    made = await start(db, await user(db))
    assert await at.run(made["job_id"]) == Completed({"found": 8, "done": 8, "skipped": 0, "failed": 0})
    assert len(platforms.times["lichess"]) == 3


@pytest.mark.parametrize("less", [20, 0])
async def test_an_answer_that_ends_early_without_a_word_loses_no_game(
    at: Bench, db: asyncpg.Connection, platforms: Platforms, less: int
) -> None:
    """In mid-line that can be seen; between two lines it cannot, so whoever does not say how long is asked again."""
    platforms.add("lichess", "Ann", some(8))
    some_of_it = export(some(8), max="5", sort="dateAsc").body
    platforms.fail("lichess", Reply(200, some_of_it[: len(some_of_it) - less], manner="unframed"))
    made = await start(db, await user(db))
    assert await at.run(made["job_id"]) == Completed({"found": 8, "done": 8, "skipped": 0, "failed": 0})


async def test_an_error_of_the_platform_costs_an_attempt_and_no_page(
    at: Bench, db: asyncpg.Connection, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(15))
    platforms.fail("lichess", export(some(15), max="10", sort="dateAsc"), Reply(500, b"", {"retry-after": "86400"}))
    made = await start(db, await user(db))
    came = await at.run(made["job_id"])
    assert isinstance(came, Retried)
    assert "lichess answered 500" in came.error
    assert came.delay == 10.0, "no longer than ten times rest_seconds"
    await at.move_clock("1m")
    assert await at.run(made["job_id"]) == Completed({"found": 15, "done": 15, "skipped": 0, "failed": 0})
    assert len(platforms.times["lichess"]) == 3


async def test_an_answer_that_is_too_large_ends_it(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(8))
    made = await start(db, await user(db))
    async with bench(dsn, config(tmp_path, platforms, settings={"page_bytes": 1_000})) as at:
        assert isinstance(await at.run(made["job_id"]), Failed)
    assert "larger than page_bytes = 1000" in (await seen(db, made["sync_id"]))["error"]


@pytest.mark.parametrize("platform", ["lichess", "chess.com"])
async def test_a_player_that_is_not_there_ends_it(
    at: Bench, db: asyncpg.Connection, platforms: Platforms, platform: str
) -> None:
    who = await user(db)
    made = await start(db, who, platform)
    came = await at.run(made["job_id"])
    assert isinstance(came, Failed)
    shown = await seen(db, made["sync_id"])
    assert shown["status"] == "failed"
    assert "there is no such player" in shown["error"]
    await start(db, who, platform)


BAD = Played("Ann", "Ben", NOW - games.DAY, "1-0", "1. e4 e5 2. Ke8 1-0")
ODD = Played("Ann", "Cem", NOW - games.DAY, "1-0", '[Variant "Crazyhouse"]\n\n1. e4 1-0', variant="crazyhouse")


async def test_some_games_that_fail_are_told_and_do_not_fail_the_sync(
    at: Bench, db: asyncpg.Connection, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", [*some(4), BAD, ODD])
    made = await start(db, await user(db))
    came = await at.run(made["job_id"])
    assert isinstance(came, Completed)
    error = came.result.pop("error")
    assert came.result == {"found": 6, "done": 4, "skipped": 1, "failed": 1}
    assert error.startswith("4/5 games analysed. 1 failed: https://lichess.org/AnnBen")
    assert "illegal san" in error
    shown = await seen(db, made["sync_id"])
    assert (shown["status"], shown["error"], shown["games_failed"]) == ("completed", error, 1)


async def test_where_every_game_failed_the_sync_has_failed(
    at: Bench, db: asyncpg.Connection, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", [BAD, ODD])
    made = await start(db, await user(db))
    came = await at.run(made["job_id"])
    assert isinstance(came, Failed)
    assert "0/1 games analysed" in (await seen(db, made["sync_id"]))["error"]
    assert await counts(db, made["sync_id"]) == {"found": 2, "pending": 0, "done": 0, "skipped": 1, "failed": 1}


async def test_without_an_engine_it_fails_with_what_to_do_and_goes_on_when_there_is_one(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(6))
    made = await start(db, await user(db))
    async with bench(dsn, config(tmp_path, platforms, settings={"engine": "/nowhere/engine"})) as at:
        came = await at.run(made["job_id"])
        assert isinstance(came, Failed)
        assert "there is no UCI engine (/nowhere/engine)" in (await seen(db, made["sync_id"]))["error"]
        assert (await counts(db, made["sync_id"]))["pending"] == 6
    asked = len(platforms.calls)
    async with bench(dsn, config(tmp_path, platforms)) as at:
        await db.execute("select worker.retry($1)", made["job_id"])
        assert await at.run(made["job_id"]) == Completed({"found": 6, "done": 6, "skipped": 0, "failed": 0})
    assert len(platforms.calls) == asked, "what was fetched is not fetched again"


async def test_an_engine_that_does_not_start_fails_no_game_and_is_tried_again(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    platforms.add("lichess", "Ann", some(3))
    made = await start(db, await user(db))
    async with bench(dsn, config(tmp_path, platforms, settings={"engine": "/bin/false"})) as at:
        came = await at.run(made["job_id"])
        assert isinstance(came, Retried)
        assert "EngineBroken: /bin/false does not start" in came.error
    assert (await counts(db, made["sync_id"]))["pending"] == 3
    async with bench(dsn, config(tmp_path, platforms)) as at:
        await at.move_clock("1m")
        assert await at.run(made["job_id"]) == Completed({"found": 3, "done": 3, "skipped": 0, "failed": 0})


@pytest.mark.parametrize(
    "settings", [{"engins": 2}, {"batch": 0}, {"batch": "ten"}, {"engines": True}, {"lichess": 7}], ids=str
)
async def test_settings_that_make_no_sense_end_it(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms, settings: dict[str, Any]
) -> None:
    made = await start(db, await user(db))
    async with bench(dsn, config(tmp_path, platforms, settings=settings)) as at:
        assert isinstance(await at.run(made["job_id"]), Failed)
    job = await db.fetchrow("select finish_reason, last_error from worker.jobs")
    assert job["finish_reason"] == "invalid"
    assert "settings of sync_games" in job["last_error"]


@pytest.mark.parametrize("sync_id", [None, 7, {}, "one"], ids=str)
async def test_a_payload_without_a_sync_ends_it(at: Bench, sync_id: Any) -> None:
    job = await at.enqueue("sync_games", {"tenant_id": "t", "platform": "lichess", "sync_id": sync_id})
    assert isinstance(await at.run(job), Failed)
    assert (await at.job(job))["finish_reason"] == "invalid"


# The real engine, behind a script that kills the process above it when it sees this position.
POISON = '[SetUp "1"]\n[FEN "8/8/8/8/8/k7/7q/K7 b - - 0 1"]\n\n1... Qa2# 0-1'
KILLER = """#!/bin/sh
while read -r line; do
  case "$line" in *8/8/8/8/8/k7*) kill -9 $PPID ;; quit) exit ;; *) echo "$line" ;; esac
done | {engine}
"""


async def test_a_game_that_kills_its_process_fails_alone(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, platforms: Platforms
) -> None:
    engine = tmp_path / "engine"
    engine.write_text(KILLER.format(engine=ENGINE), encoding="utf-8")
    engine.chmod(0o755)
    platforms.add("lichess", "Ann", [*some(4), Played("Ann", "Ben", NOW - games.DAY, "0-1", POISON)])
    made = await start(db, await user(db))
    async with bench(dsn, config(tmp_path, platforms, settings={"engine": str(engine)})) as at:
        came = await at.run(made["job_id"])
    assert isinstance(came, Completed)
    assert (came.result["done"], came.result["failed"]) == (4, 1)
    assert "child process" in came.result["error"]
