"""Chess.com: `GET /pub/player/NAME/games/archives` lists a player's months, and each month is one document of games."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from worker.jobs.games.asking import Asker
from worker.jobs.games.game import Game, Page, Wanted, packed, text
from worker.jobs.games.terms import Terms

RATE = "chess_com"
ACCEPT = "application/json"
_MONTH = re.compile(r"/games/(\d{4})/(\d{2})$")
_KINDS = {"bullet", "blitz", "rapid", "daily"}
_DRAWS = {"agreed", "repetition", "stalemate", "insufficient", "50move", "timevsinsufficient"}


async def pages(asker: Asker, terms: Terms, wanted: Wanted, cursor: int) -> AsyncIterator[tuple[Page, int]]:
    """Month after month, each with the cursor behind it (202601); `cursor` is the last month that was kept."""
    # The API knows names in lower case only, and redirects others, which is not followed.
    player = f"{terms.chess_com}/pub/player/{quote(wanted.username.lower(), safe='')}/games"
    body, _ = await asker.get(f"{player}/archives", ACCEPT)
    for month in await asker.context.to_process(months, body, wanted):
        if month <= cursor:
            continue
        # The addresses in the list are not followed, only what they say: an answer must not send us anywhere.
        body, _ = await asker.get(f"{player}/{month // 100:04}/{month % 100:02}", ACCEPT)
        found = await asker.context.to_process(parse, body, wanted)
        yield found, month


def months(body: bytes, wanted: Wanted) -> list[int]:
    """The months of the list that lie in the span, oldest first, as 202601."""
    first, last = _month(wanted.since), _month(wanted.until)
    listed = (_MONTH.search(str(url)) for url in orjson.loads(body)["archives"])
    found = {100 * int(match[1]) + int(match[2]) for match in listed if match}
    return sorted(month for month in found if first <= month <= last)


def parse(body: bytes, wanted: Wanted) -> Page:
    """The games of a month."""
    return Page(packed(_games(orjson.loads(body)["games"], wanted.username), wanted))


def _games(listed: list[Any], username: str) -> Iterator[Game]:
    for told in listed:
        if game := _game(told, username):
            yield game


def _game(told: Any, username: str) -> Game | None:
    names = {colour: text(told[colour]["username"], 200) for colour in ("white", "black")}
    colour = next((each for each, name in names.items() if name.lower() == username.lower()), None)
    if colour is None or "pgn" not in told:
        return None
    said = told[colour]["result"]
    kind = told.get("time_class")
    rules = told.get("rules", "chess")
    return Game(
        url=text(told["url"], 500),
        played_at=1000 * int(told["end_time"]),
        kind=kind if kind in _KINDS else "other",
        variant="standard" if rules == "chess" else text(rules, 100),
        colour=colour,
        result="win" if said == "win" else "draw" if said in _DRAWS else "loss",
        opponent=names["black" if colour == "white" else "white"],
        pgn=text(told["pgn"], 262_144),
    )


def _month(milliseconds: int) -> int:
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return 100 * moment.year + moment.month
