"""The scenes of the demo "games": each does one thing to real daemons and says what came of it."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg

from worker import migrations
from worker.demo import tables
from worker.demo.chess_games import make_games
from worker.demo.daemon import running
from worker.demo.failure import must
from worker.demo.games_desk import CONFIG, Desk, Looks
from worker.demo.platforms import CHESS_COM, LICHESS, Platforms, Played, cut, export
from worker.demo.receiver import Reply
from worker.demo.teller import Teller
from worker.jobs.games.analyst import analyse
from worker.jobs.games.terms import Search, find_engine

SEED = 64
GAMES, OTHERS = 200, 24
SLICE = 40  # made at a time: a thread cannot be interrupted
HOUR = 3_600_000
PAGE = 40
QUICK, DEEP = 500, 2_500  # nodes; a production's are more
MOST, SPAN = 8, 2.0  # requests that the platforms here let pass in so many seconds
ALONE = 10  # games for which an engine each is started, to compare
MISSING = "no UCI engine is installed: the games were fetched and kept, and none is analysed"


class Scenes:
    """Each does one thing and says what came of it."""

    def __init__(self, connection: asyncpg.Connection, url: str, platforms: Platforms, teller: Teller) -> None:
        self._connection = connection
        self._desk = Desk(connection)
        self._url = url
        self._platforms = platforms
        self._teller = teller
        self._wanted = os.environ.get("WORKER_DEMO_ENGINE", "")  # another one than Stockfish
        self._engine = find_engine(self._wanted)
        self._user = UUID(int=0)
        self._sync = UUID(int=0)  # the one in hand
        self._first = UUID(int=0)  # the one that analysed
        self._played: list[Played] = []

    async def prepare(self) -> str | None:
        """The shipped SQL, a user, and games to be found; answers with the engine's path."""
        applied = await migrations.install(self._connection, "games")
        await tables.apply(self._connection, "games")
        self._teller.line(f"installed the game sync ({len(applied)} files)")
        now = int(time.time()) * 1000
        for first in range(0, GAMES, SLICE):
            self._played += await self._made(SEED + first, SLICE, now - first * HOUR)
        others = await self._made(SEED - 1, OTHERS, now)
        broken = Played("Ann", "Ben", now - 1000, "1-0", "1. e4 e5 2. Ke8 1-0")
        odd = Played("Ann", "Cem", now - 2000, "1-0", '[Variant "Crazyhouse"]\n\n1. e4 1-0', variant="crazyhouse")
        self._platforms.add(LICHESS, "Ann", self._played)
        self._platforms.add(CHESS_COM, "Ann", [*others, broken, odd])
        self._user = await self._desk.ask("select demo.add_user($1, $2)", "Ann", "Ann")
        how = f"by {self._engine} and some dice" if self._engine else "by dice alone"
        self._teller.line(f"made {GAMES} games for Lichess and {OTHERS + 2} for Chess.com, {how}")
        return self._engine

    async def _made(self, seed: int, count: int, newest: int) -> list[Played]:
        return await asyncio.to_thread(make_games, seed, count, "Ann", newest, apart=HOUR, engine=self._engine)

    async def until_killed(self) -> dict[str, Any]:
        """A daemon fetches through trouble, and is killed in mid-analysis."""
        self._teller.title("a sync is started")
        looks = Looks()
        async with running(self._url, self._config(looks.port)) as daemon:
            await looks.ready()
            refusals = await self._refusals()
            self._platforms.fail(LICHESS, cut(export(self._played, max=str(PAGE), sort="dateAsc"), 9_000))
            self._platforms.fail(LICHESS, Reply(429, b"", {"retry-after": "1"}))
            self._sync = self._first = await self._desk.start(self._user, LICHESS)
            again = await self._desk.refusal(self._user, LICHESS)
            self._teller.line(f"a second start meanwhile: {again}, with the running sync's id")
            await self._follow(lambda seen: seen["games_analyzed"] >= GAMES // 4)
            lag = await looks.lag()
            self._teller.title("kill -9 in mid-analysis")
            await daemon.kill()
        done = await self._desk.ask("select demo.remember_analyses()")
        requests = len(self._platforms.times[LICHESS])
        self._teller.line(f"the daemon is dead; {done} games are analysed, of {GAMES}")
        return {"refusals": {**refusals, "active": again}, "analysed": done, "requests": requests, "lag": lag}

    async def after(self) -> dict[str, Any]:
        """Another daemon goes on, and does what else there is."""
        looks = Looks()
        async with running(self._url, self._config(looks.port)) as daemon:
            await looks.ready()
            told = {"resume": await self._resume(), "again": await self._again(), "partial": await self._partial()}
            lag = await looks.lag()
            must(await daemon.stop() == 0, f"the daemon did not stop\n{daemon.said()}")
        told |= {"limits": self._limits(), "lag": lag, "savings": await self._savings()}
        self._tell_lag(lag)
        return told

    async def without_an_engine(self) -> dict[str, Any]:
        """What can be shown without one."""
        self._teller.title("a sync is started")
        looks = Looks()
        async with running(self._url, self._config(looks.port)):
            await looks.ready()
            refusals = await self._refusals()
            self._sync = await self._desk.start(self._user, LICHESS)
            seen = await self._follow(lambda seen: seen["status"] in ("completed", "failed"))
        must(seen["games_found"] == GAMES, f"{seen['games_found']} games were found")
        self._teller.line(f"the sync {seen['status']}: {seen['error']}")
        self._teller.title("and here it ends")
        self._teller.line(MISSING)
        self._teller.line("on Debian: apt-get install stockfish; `worker retry` goes on with the games that are there")
        return {"refusals": refusals, "found": seen["games_found"], "error": seen["error"], "missing": MISSING}

    async def _refusals(self) -> dict[str, str]:
        refusals = {
            "platform": await self._desk.refusal(self._user, "icc"),
            "user": await self._desk.refusal(UUID(int=7), LICHESS),
        }
        self._teller.line(f"refused: an unknown platform, {refusals['platform']}; an unknown user, {refusals['user']}")
        return refusals

    async def _resume(self) -> dict[str, Any]:
        self._teller.title("another daemon goes on")
        before = len(self._platforms.times[LICHESS])
        seen = await self._follow(lambda seen: seen["status"] in ("completed", "failed"))
        repeated = await self._desk.ask("select demo.repeated_analyses()")
        fetched = len(self._platforms.times[LICHESS]) - before
        must(
            (seen["status"], seen["games_analyzed"], repeated, fetched) == ("completed", GAMES, 0, 0),
            f"{seen['status']}: {seen['error']}; {repeated} games analysed twice, {fetched} requests repeated",
        )
        self._teller.line(f"{GAMES} of {GAMES} games; none was analysed twice, none fetched twice")
        return {"analysed": seen["games_analyzed"], "repeated": repeated, "requests": fetched}

    async def _again(self) -> dict[str, Any]:
        self._teller.title("the same again")
        self._sync = await self._desk.start(self._user, LICHESS)
        seen = await self._follow(lambda seen: seen["status"] in ("completed", "failed"))
        skipped = seen["games_skipped"]
        must((seen["status"], skipped) == ("completed", GAMES), f"{seen['status']}, {skipped} skipped")
        self._teller.line(f"{skipped} of {seen['games_found']} games were analysed before, and are skipped")
        return {"skipped": skipped}

    async def _partial(self) -> dict[str, Any]:
        self._teller.title("another platform, and a game that nobody can read")
        other = await self._desk.start(self._user, CHESS_COM)
        seen = await self._follow(lambda seen: seen["status"] in ("completed", "failed"), other)
        counts = {name: seen[f"games_{name}"] for name in ("found", "analyzed", "skipped", "failed")}
        wanted = {"found": OTHERS + 2, "analyzed": OTHERS, "skipped": 1, "failed": 1}
        must((seen["status"], counts) == ("completed", wanted), f"{seen['status']}: {counts}")
        self._teller.line(f"completed, and it says: {seen['error']}")
        return {**counts, "error": seen["error"]}

    def _limits(self) -> dict[str, Any]:
        self._teller.title("limits, counted by the platforms")
        told: dict[str, Any] = {}
        for platform in (LICHESS, CHESS_COM):
            count, most = len(self._platforms.times[platform]), self._platforms.most_in(platform, SPAN)
            told[platform] = {"requests": count, "most": most, "bound": MOST}
            self._teller.line(f"{platform}: {count} requests, at most {most} in any {SPAN:g} s; {MOST} are let pass")
        must(self._platforms.refused == 0, f"{self._platforms.refused} requests came too often")
        return told | {"refused": self._platforms.refused}

    async def _savings(self) -> dict[str, Any]:
        self._teller.title("what batches and the choice of games save")
        return {"batching": await self._batching(), "selection": await self._selection()}

    async def _batching(self) -> dict[str, Any]:
        search = Search(self._engine or "", quick_nodes=QUICK, swing=5_000)  # which no game turns by
        asked = [(n, game.pgn, "white") for n, game in enumerate(self._played[:ALONE])]
        began = time.monotonic()
        for one in asked:
            await asyncio.to_thread(analyse, [one], search)
        between = time.monotonic()
        await asyncio.to_thread(analyse, asked, search)
        alone, together = round(between - began, 3), round(time.monotonic() - between, 3)
        times = round(alone / together, 1)
        self._teller.line(
            f"a quick look at {ALONE} games, with an engine for each: {alone} s; with one for all: {together} s, "
            f"{times:g} times as fast"
        )
        return {"games": ALONE, "alone": alone, "together": together, "times": times}

    async def _selection(self) -> dict[str, Any]:
        effort = await self._desk.effort(self._first, DEEP)
        percent = round(100 * (1 - effort["nodes"] / effort["all_deep"]), 1)
        self._teller.line(
            f"{effort['deep']} of {effort['deep'] + effort['quick']} games got the deep look: "
            f"{effort['nodes'] / 1e6:.1f} million nodes; for all it had been {effort['all_deep'] / 1e6:.1f}, "
            f"so {percent:g} % are saved"
        )
        return {**effort, "percent": percent}

    def _tell_lag(self, lag: dict[str, Any]) -> None:
        self._teller.title("and the event loop")
        self._teller.line(
            f"of {lag['looks']} looks at the clock {lag['within_50_ms']} were at most 50 ms late; "
            f"none was later than {lag['most']:g} s"
        )

    async def _follow(self, enough: Callable[[dict[str, Any]], bool], sync: UUID | None = None) -> dict[str, Any]:
        with self._teller.progress("games") as tell:
            return await self._desk.follow(sync or self._sync, enough, tell)

    def _config(self, port: int) -> str:
        return CONFIG.format(
            origin=self._platforms.origin,
            engine=self._wanted,
            port=port,
            page=PAGE,
            quick=QUICK,
            deep=DEEP,
            limit=MOST // 2,
            span=SPAN,
        )
