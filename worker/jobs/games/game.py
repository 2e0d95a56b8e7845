"""A game as both platforms' answers are brought to, and which games are wanted. Pure; runs in child processes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice

import orjson

CHUNK = 100  # games that are written in one statement


@dataclass(frozen=True, slots=True)
class Game:
    """One game of a user.

    Args:
        played_at: milliseconds of the epoch.
        kind: bullet, blitz, rapid, classical, daily or other.
        colour: the user's; and `result` is theirs: win, loss or draw.
    """

    url: str
    played_at: int
    kind: str
    variant: str
    colour: str
    result: str
    opponent: str | None
    pgn: str

    def row(self) -> dict[str, object]:
        """As `games.store_page` takes it."""
        return asdict(self) | {"played_at": datetime.fromtimestamp(self.played_at / 1000, UTC).isoformat()}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sync asks for.

    Args:
        since, until: milliseconds of the epoch, both included.
        filters: of kind, result, colour: the values that pass; what is not named passes.
    """

    username: str
    since: int
    until: int
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def takes(self, game: Game) -> bool:
        """Whether this game is wanted."""
        if not self.since <= game.played_at <= self.until:
            return False
        return all(getattr(game, name) in values for name, values in self.filters.items())


@dataclass(frozen=True, slots=True)
class Page:
    """A page of an answer, filtered.

    Args:
        chunks: JSON arrays for `games.store_page`, of a hundred games at most, the oldest first.
        newest: of all games of the answer, wanted, playable or not; 0 where there is none, or a page is a month.
        seen: how many games the answer had, wanted, playable or not; 0 where a page is a month.
        broken: the answer ended in the middle.
    """

    chunks: list[str]
    newest: int = 0
    seen: int = 0
    broken: bool = False


def packed(found: Iterable[Game], wanted: Wanted) -> list[str]:
    """The chunks of a page: the games of an answer, filtered."""
    kept = sorted((game for game in found if wanted.takes(game)), key=lambda game: game.played_at)
    return list(_chunks(game.row() for game in kept))


def _chunks(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    while chunk := list(islice(rows, CHUNK)):
        yield orjson.dumps(chunk).decode()


def text(value: object, most: int) -> str:
    """What a platform sent as text, short enough for its column, and without what Postgres cannot keep."""
    return str(value).replace("\x00", "").encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
