"""What the tests of game sync share: the shipped SQL, users, platforms with games, and a configuration for both."""

import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from tests.heart import declare, write_config
from tests.support import ROOT
from worker import migrations
from worker.demo.chess_games import make_games
from worker.demo.platforms import Platforms, Played
from worker.jobs.games.terms import find_engine

PAGE = (ROOT / "docs" / "systems" / "games.md").read_text(encoding="utf-8")
DECLARED = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
ENGINE = find_engine()
needs_engine = pytest.mark.skipif(ENGINE is None, reason="no UCI engine here; on Debian: apt-get install stockfish")
NOW = int(time.time()) * 1000
DAY = 86_400_000
# Nobody waits, and what the engine makes of it is another test's subject.
QUICK = {"quick_nodes": 50, "deep_nodes": 200, "rest_seconds": 1, "batch": 5}


async def install(connection: asyncpg.Connection) -> None:
    """Apply the shipped files, and declare the type as the page does."""
    await migrations.install(connection, "games")
    await declare(
        connection, {"name": "sync_games", "unique_key": "{platform}", "unique_while": "active", "audit": True}
    )


async def user(connection: asyncpg.Connection, lichess: str | None = "Ann", chess_com: str | None = "Ann") -> uuid.UUID:
    """A user with these names."""
    made = uuid.uuid4()
    await connection.execute("insert into games.player values ($1, $2, $3)", made, lichess, chess_com)
    return made


async def start(
    connection: asyncpg.Connection, who: uuid.UUID, platform: str = "lichess", **more: Any
) -> asyncpg.Record:
    """`games.start` with what is given beside."""
    named = "".join(f", {name} => ${n}" for n, name in enumerate(more, 3))
    values = [orjson.dumps(value).decode() if isinstance(value, dict) else value for value in more.values()]
    found = await connection.fetchrow(f"select * from games.start($1, $2{named})", who, platform, *values)
    assert found is not None
    return found


async def seen(connection: asyncpg.Connection, sync: uuid.UUID) -> dict[str, Any]:
    """The sync in the old words."""
    return dict(await connection.fetchrow("select * from games.sync_jobs where id = $1", sync))


async def counts(connection: asyncpg.Connection, sync: uuid.UUID) -> dict[str, int]:
    return dict(await connection.fetchrow("select * from games.counts($1)", sync))


def some(count: int, player: str = "Ann", seed: int = 1, **more: Any) -> list[Played]:
    """Games by dice, one an hour, up to yesterday."""
    return make_games(seed, count, player, NOW - DAY, **more)


def config(
    folder: Path, platforms: Platforms, *, rates: str = "", settings: Mapping[str, Any] | None = None, **sections: str
) -> Path:
    """The page's own declaration, pointed at these platforms, without long waits."""
    given = {"lichess": platforms.origin, "chess_com": platforms.origin, **QUICK, **(settings or {})}
    told = "{ " + ", ".join(f"{name} = {orjson.dumps(value).decode()}" for name, value in given.items()) + " }"
    text = re.sub(r"(?m)^settings = .*$", lambda _: f"settings = {told}", DECLARED)
    text = re.sub(r"(?m)^retry = .*$", 'retry = { max_attempts = 8, first = "10ms", max = "50ms" }', text)
    text = re.sub(r"(?s)\[rate\.lichess\].*", rates or FREE, text)
    return write_config(folder, text, **sections)


FREE = """
[rate.lichess]
limit = 1000
per = "1s"
[rate.chess_com]
limit = 1000
per = "1s"
"""


RUNNING = """
update worker.job_queue set status = 'running', queued = false, claim = 1, attempt = 1, started_at = worker.now(),
  phase = $2 where id = $1
"""


async def runs(connection: asyncpg.Connection, job: int, phase: str = "fetching") -> None:
    """As if a daemon had it in hand."""
    await connection.execute(RUNNING, job, phase)


async def ends(connection: asyncpg.Connection, job: int, status: str) -> None:
    await connection.execute(
        "update worker.job_queue set status = $2, trouble = $2 in ('failed', 'cancelled'), queued = false,"
        " held_key = null, finished_at = worker.now() where id = $1",
        job,
        status,
    )


def page(*urls: str) -> str:
    return orjson.dumps(
        [
            {"url": url, "played_at": f"2026-01-0{n}T00:00:00Z", "kind": "blitz", "variant": "standard",
             "colour": "white", "result": "win", "opponent": None, "pgn": "1. e4 *"}
            for n, url in enumerate(urls, 1)
        ]
    ).decode()  # fmt: skip


async def store(
    connection: asyncpg.Connection, sync: uuid.UUID, job: int, *urls: str, cursor: int = 1, most: int = 100
) -> bool:
    return bool(
        await connection.fetchval(
            "select games.store_page($1, $2, 1, $3, $4, $5)", sync, job, page(*urls), cursor, most
        )
    )


async def analysed(db: asyncpg.Connection, sync: uuid.UUID, job: int, *findings: dict[str, Any]) -> None:
    done = {"status": "done", "look": "quick", "engine": "e", "nodes": 1, "moves": 1, "swing": 0, "curve": []}
    rows = [{**done, **finding} for finding in findings]
    assert await db.fetchval("select games.record($1, $2, 1, $3)", sync, job, orjson.dumps(rows).decode())
