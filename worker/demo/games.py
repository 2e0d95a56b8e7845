"""The demo "games": two hundred games of chess are fetched and analysed, through refusals, a broken answer and a
kill -9, and nothing is fetched, or analysed, twice."""

import time
from typing import Any

from worker import migrations
from worker.demo.failure import DemoFailed
from worker.demo.interrupt import interruptible
from worker.demo.place import connected, place
from worker.demo.platforms import CHESS_COM, LICHESS, Platforms
from worker.demo.teller import Teller

try:
    from worker.demo.games_scenes import MOST, SPAN, Scenes
except ModuleNotFoundError as error:
    raise DemoFailed(f"{error}: this demo needs the extra games: pip install 'job-queue-worker[games]'") from None


async def play(teller: Teller) -> dict[str, Any]:
    """The whole story; SIGTERM and Ctrl-C end it early and leave nothing behind. Where there is no engine, `missing` in
    what it answers says so."""
    return await interruptible(_story(teller))


async def _story(teller: Teller) -> dict[str, Any]:
    began = time.monotonic()
    teller.title("a fresh database, and two platforms")
    bounds = {LICHESS: (MOST, SPAN), CHESS_COM: (MOST, SPAN)}
    async with place(teller) as url, Platforms(bounds) as platforms:
        await migrations.migrate(url)
        async with connected(url) as connection:
            told = await _scenes(Scenes(connection, url, platforms, teller))
    seconds = round(time.monotonic() - began, 2)
    teller.line(f"all of it took {seconds:g} s")
    return told | {"seconds": seconds}


async def _scenes(scenes: Scenes) -> dict[str, Any]:
    told: dict[str, Any] = {"engine": await scenes.prepare()}
    if told["engine"] is None:
        return told | await scenes.without_an_engine()
    first = await scenes.until_killed()
    told["refusals"] = first.pop("refusals")
    return told | {"kill": first} | await scenes.after()
