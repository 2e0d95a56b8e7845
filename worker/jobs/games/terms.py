"""The settings of `[job.sync_games]`, checked."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from worker import InvalidJob

ENGINE = "stockfish"
PLACES = ("/usr/games", "/usr/local/bin", "/opt/homebrew/bin")  # beside the PATH, which a service may have cut short


@dataclass(frozen=True, slots=True)
class Search:
    """How an engine looks at games.

    Args:
        engine: the path of a UCI engine.
        quick_nodes: searched for a position of the quick look, which is at one in `quick_every`.
        deep_nodes: searched for every position of the deep look.
        swing: hundredths of a pawn; a game that turned by so much against its user gets the deep look.
        seconds: that a search may take before the engine is taken for hung.
    """

    engine: str
    quick_nodes: int = 1_000
    quick_every: int = 4
    deep_nodes: int = 20_000
    swing: int = 300
    seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a sync may take, and from where.

    Args:
        lichess, chess_com: where their APIs are.
        engine: a path or a name; "" for Stockfish, wherever it is.
        engines: batches that one sync has analysed at the same time, each by an engine of its own.
        batch: games for which an engine is started once, and which are written down together.
        most_games: that one sync analyses, the oldest first; those that are analysed already do not count.
        page: games of one request to Lichess.
        page_bytes: of an answer; a larger one is refused.
        request_seconds: for a whole answer.
        rest_seconds: for which a platform is left alone after a 429 that says no time. One that says a time is
            believed up to ten times this.
    """

    lichess: str = "https://lichess.org"
    chess_com: str = "https://api.chess.com"
    engine: str = ""
    engines: int = 2
    batch: int = 10
    quick_nodes: int = 1_000
    quick_every: int = 4
    deep_nodes: int = 20_000
    swing: int = 300
    search_seconds: float = 30.0
    most_games: int = 1_000
    page: int = 100
    page_bytes: int = 33_554_432
    request_seconds: float = 60.0
    rest_seconds: float = 60.0

    def search(self) -> Search | None:
        """How to look at games, or None where there is no engine."""
        path = find_engine(self.engine)
        if path is None:
            return None
        return Search(path, self.quick_nodes, self.quick_every, self.deep_nodes, self.swing, self.search_seconds)


def read(settings: Mapping[str, Any]) -> Terms:
    """The settings as terms; raises InvalidJob for one that is unknown or of another kind."""
    kinds = {field.name: type(field.default) for field in fields(Terms)}
    for name, value in settings.items():
        if name not in kinds:
            raise InvalidJob(f"settings of sync_games: {name} is unknown; known are {', '.join(kinds)}")
        fits = isinstance(value, int | float) if kinds[name] is float else isinstance(value, kinds[name])
        if not fits or isinstance(value, bool) or (not isinstance(value, str) and value <= 0):
            raise InvalidJob(f"settings of sync_games: {name} = {value!r} must be a {kinds[name].__name__} above 0")
    return Terms(**settings)


def find_engine(name: str = "") -> str | None:
    """The path of an engine: of the one that is named, or of Stockfish."""
    if found := shutil.which(name or ENGINE):
        return found
    places = (str(Path(place, name or ENGINE)) for place in PLACES)
    return next((found for place in places if (found := shutil.which(place))), None)
