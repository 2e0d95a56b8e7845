"""Lichess and Chess.com in small: a real HTTP server on loopback that speaks their shapes, for the demo and for tests.

It serves exports in pages and months, answers 429 to whoever asks too often, and first whatever it was told to do.
"""

import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from worker.demo.receiver import Call, Receiver, Reply

LICHESS, CHESS_COM = "lichess", "chess.com"
_LOST = {"white": "0-1", "black": "1-0"}


@dataclass(frozen=True, slots=True)
class Played:
    """A game as it was played.

    Args:
        at: milliseconds of the epoch.
        result: 1-0, 0-1 or 1/2-1/2.
        kind: as the platform says it (ultraBullet, blitz, daily …).
    """

    white: str
    black: str
    at: int
    result: str
    pgn: str
    kind: str = "blitz"
    variant: str = "standard"


class Platforms(Receiver):
    """`async with Platforms() as platforms`: serves at `platforms.origin` until the end.

    Attributes:
        bounds: requests that a platform lets pass in any span of so many seconds; the others get a 429.
        refused: how many got one.
        times: when each request to a platform came, by the monotonic clock; refused ones count as well.
    """

    def __init__(self, bounds: dict[str, tuple[int, float]] | None = None) -> None:
        super().__init__(None)
        self.bounds = bounds or {}
        self.refused = 0
        self.times: dict[str, list[float]] = defaultdict(list)
        self._games: dict[tuple[str, str], list[Played]] = {}
        self._faults: dict[str, deque[Reply]] = defaultdict(deque)

    def add(self, platform: str, player: str, games: Sequence[Played]) -> None:
        """A player, with these games and none other."""
        self._games[platform, player.lower()] = sorted(games, key=lambda game: game.at)

    def fail(self, platform: str, *replies: Reply) -> None:
        """Answer the next requests to this platform with these, one each."""
        self._faults[platform].extend(replies)

    def most_in(self, platform: str, seconds: float) -> int:
        """The most requests that came in any span of so many seconds."""
        times = self.times[platform]
        return max((sum(begin <= each < begin + seconds for each in times) for begin in times), default=0)

    def _answer(self, call: Call) -> Reply:
        parts = urlsplit(call.path)
        steps = [unquote(step) for step in parts.path.strip("/").split("/")]
        platform = LICHESS if steps[0] == "api" else CHESS_COM
        self.times[platform].append(time.monotonic())
        if reply := self._too_often(platform):
            return reply
        if self._faults[platform]:
            return self._faults[platform].popleft()
        games = self._games.get((platform, steps[3 if platform == LICHESS else 2].lower()))
        if games is None:
            return Reply.json(404, {"error": "Not found"})
        if platform == LICHESS:
            return _export(games, {name: values[0] for name, values in parse_qs(parts.query).items()})
        return _months(games, self.origin, steps) if steps[-1] == "archives" else _month(games, *map(int, steps[-2:]))

    def _too_often(self, platform: str) -> Reply | None:
        if platform not in self.bounds:
            return None
        most, seconds = self.bounds[platform]
        times = self.times[platform]
        if sum(times[-1] - each < seconds for each in times) <= most:
            return None
        self.refused += 1
        return Reply.json(429, {"error": "Too many requests"}, **{"retry-after": "1"})


def cut(reply: Reply, keep: int) -> Reply:
    """That answer, broken off after so many bytes; the connection closes in the middle."""
    return Reply(reply.status, reply.body[:keep], reply.headers, manner="broken")


def export(games: Sequence[Played], **asked: str) -> Reply:
    """What Lichess answers; for a fault that begins like the truth."""
    return _export(sorted(games, key=lambda game: game.at), asked)


def _export(games: Sequence[Played], asked: dict[str, str]) -> Reply:
    since, until = int(asked.get("since", 0)), int(asked.get("until", 1 << 62))
    found = [game for game in games if since <= game.at <= until]
    if asked.get("sort") != "dateAsc":
        found.reverse()
    lines = b"".join(orjson.dumps(_lichess(game)) + b"\n" for game in found[: int(asked.get("max", 1 << 30))])
    return Reply(200, lines, {"content-type": "application/x-ndjson"})


def _lichess(game: Played) -> dict[str, Any]:
    told = {
        "id": _id(game), "rated": True, "variant": game.variant, "speed": game.kind, "perf": game.kind,
        "createdAt": game.at, "lastMoveAt": game.at + 300_000,
        "status": "draw" if game.result == "1/2-1/2" else "resign",
        "players": {
            "white": {"user": {"name": game.white, "id": game.white.lower()}, "rating": 1500},
            "black": {"user": {"name": game.black, "id": game.black.lower()}, "rating": 1500},
        },
        "pgn": game.pgn,
    }  # fmt: skip
    if game.result != "1/2-1/2":
        told["winner"] = "white" if game.result == "1-0" else "black"
    return told


def _months(games: Sequence[Played], origin: str, steps: list[str]) -> Reply:
    found = sorted({(moment.year, moment.month) for moment in map(_moment, games)})
    urls = [f"{origin}/pub/player/{steps[2]}/games/{year:04}/{month:02}" for year, month in found]
    return Reply.json(200, {"archives": urls})


def _month(games: Sequence[Played], year: int, month: int) -> Reply:
    found = [game for game in games if (_moment(game).year, _moment(game).month) == (year, month)]
    return Reply(
        200, orjson.dumps({"games": [_chess_com(game) for game in found]}), {"content-type": "application/json"}
    )


def _chess_com(game: Played) -> dict[str, Any]:
    def side(colour: str, name: str) -> dict[str, Any]:
        lost = game.result == _LOST[colour]
        said = "repetition" if game.result == "1/2-1/2" else "resigned" if lost else "win"
        return {"username": name, "rating": 1500, "result": said}

    return {
        "url": f"https://www.chess.com/game/live/{_id(game)}", "pgn": game.pgn, "time_control": "180+2",
        "end_time": game.at // 1000, "rated": True, "uuid": _id(game), "time_class": game.kind,
        "rules": "chess" if game.variant == "standard" else game.variant,
        "white": side("white", game.white), "black": side("black", game.black),
    }  # fmt: skip


def _id(game: Played) -> str:
    return f"{game.white[:3]}{game.black[:3]}{game.at}"


def _moment(game: Played) -> datetime:
    return datetime.fromtimestamp(game.at / 1000, UTC)
