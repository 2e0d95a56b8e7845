"""The demo "stats": a match becomes ten steps and a webhook, a step that fails comes again alone, a storm of matches
makes two runs, and neither a dead receiver nor an absent worker loses anything."""

import time
import tomllib
import uuid
from pathlib import Path
from typing import Any

import asyncpg

from worker import migrations
from worker.demo import club, tables
from worker.demo.daemon import daemon
from worker.demo.failure import DemoFailed
from worker.demo.interrupt import interruptible
from worker.demo.place import connected, place
from worker.demo.receiver import Receiver
from worker.demo.scenes import Scenes
from worker.demo.teller import Teller

SEED = 2026
PLAYERS, MATCHES = 200, 2_000
KEY = "the demo's own"  # between its daemon and its receiver


async def play(teller: Teller, config: Path) -> dict[str, Any]:
    """The whole story; SIGTERM and Ctrl-C end it early and leave nothing behind."""
    return await interruptible(_story(teller, config))


async def _story(teller: Teller, config: Path) -> dict[str, Any]:
    began, steps = time.monotonic(), _steps(config)
    teller.title("a fresh database")
    async with place(teller) as url, Receiver(KEY) as receiver:
        await migrations.migrate(url)
        variables = {"APP_URL": receiver.origin, "INTERNAL_API_KEY": KEY}
        async with connected(url) as connection:
            tenant = await _prepare(connection, teller)
            scenes = Scenes(connection, tenant, receiver, steps, teller)
            async with daemon(url, config, variables) as running:
                await scenes.ready(running)
                told = {
                    "steps": await scenes.finish_match(),
                    "webhook": await scenes.webhook(),
                    "times": await scenes.times(),
                    "retry": await scenes.stumble(),
                    "storm": await scenes.storm(),
                    "outage": await scenes.outage(),
                }
                await scenes.stop()
            await scenes.miss()
            async with daemon(url, config, variables) as again:
                await scenes.ready(again)
                await scenes.catch_up()
                await scenes.stop()
    seconds = round(time.monotonic() - began, 2)
    teller.line(f"all of it took {seconds:g} s")
    return told | {"seconds": seconds}


async def _prepare(connection: asyncpg.Connection, teller: Teller) -> uuid.UUID:
    """The shipped SQL and a made-up club; answers with its id."""
    applied = await migrations.install(connection, "stats")
    teller.line(f"installed the queue, and the statistics of a football club ({len(applied)} files)")
    made = club.generate(SEED, PLAYERS, MATCHES)
    with teller.progress(f"{PLAYERS} players, {MATCHES} matches, rows") as tell:
        await tables.load(connection, made, tell)
    await tables.apply(connection, "watch")
    return made.tenants[0].id


def _steps(config: Path) -> dict[str, dict[str, Any]]:
    """The steps as the file declares them."""
    try:
        steps = tomllib.loads(config.read_text(encoding="utf-8"))["job"]["stats_update"]["steps"]
        return {name: dict(step) for name, step in steps.items()}
    except (OSError, ValueError, KeyError) as error:
        raise DemoFailed(f"{config} does not declare the steps of stats_update: {error!r}") from None
