"""Lichess: `GET /api/games/user/NAME` exports a player's games as NDJSON, one game a line, oldest first when asked to.

An export is taken in pages: each asks for games since the newest one of the page before, which comes again with it.
"""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from worker.jobs.games.asking import Asker
from worker.jobs.games.game import Game, Page, Wanted, packed, text
from worker.jobs.games.terms import Terms

RATE = "lichess"
ACCEPT = "application/x-ndjson"
_KINDS = {"ultraBullet": "bullet", "correspondence": "daily"}
_KNOWN = {"bullet", "blitz", "rapid", "classical", "daily"}
_NOT_PLAYED = {"created", "started", "aborted", "noStart"}


async def pages(asker: Asker, terms: Terms, wanted: Wanted, cursor: int) -> AsyncIterator[tuple[Page, int]]:
    """Page after page, each with the cursor behind it; `cursor` is that of the last page that was kept."""
    since = max(wanted.since, cursor)
    while since <= wanted.until:
        body, framed = await asker.get(_url(terms, wanted, since), ACCEPT)
        found = await asker.context.to_process(parse, body, wanted)
        yield found, max(found.newest, since)
        if found.seen == 0 or (found.seen < terms.page and framed and not found.broken):
            return
        # That instant again, for it may have more games than fitted in; but not where it alone filled the page.
        since = found.newest if found.newest > since else since + 1


def parse(body: bytes, wanted: Wanted) -> Page:
    """The games of an export; a last line that is not whole is left out, and said."""
    *lines, rest = body.split(b"\n")
    told = [orjson.loads(line) for line in lines if line.strip()]
    broken = False
    try:
        told += [orjson.loads(rest)] if rest.strip() else []
    except ValueError:
        broken = True
    games = [game for each in told if (game := _game(each, wanted.username))]
    # Also of those that are left out: they fill a page like others.
    newest = max((int(each["createdAt"]) for each in told), default=0)
    return Page(packed(games, wanted), newest, len(told), broken)


def _game(told: Any, username: str) -> Game | None:
    players = told["players"]
    names = {colour: _name(players.get(colour, {})) for colour in ("white", "black")}
    colour = next((each for each, name in names.items() if name and name.lower() == username.lower()), None)
    if colour is None or told.get("status") in _NOT_PLAYED or "pgn" not in told:
        return None
    winner = told.get("winner")
    kind = _KINDS.get(told.get("speed"), told.get("speed"))
    return Game(
        url=f"https://lichess.org/{text(told['id'], 100)}",
        played_at=int(told["createdAt"]),
        kind=kind if kind in _KNOWN else "other",
        variant=text(told.get("variant", "standard"), 100),
        colour=colour,
        result="draw" if winner is None else "win" if winner == colour else "loss",
        opponent=names["black" if colour == "white" else "white"],
        pgn=text(told["pgn"], 262_144),
    )


def _name(player: dict[str, Any]) -> str | None:
    if "user" in player:
        return text(player["user"].get("name") or player["user"]["id"], 200)
    return f"level {player['aiLevel']}" if "aiLevel" in player else None


def _url(terms: Terms, wanted: Wanted, since: int) -> str:
    asked = {
        "since": since, "until": wanted.until, "max": terms.page, "sort": "dateAsc", "pgnInJson": "true",
        "clocks": "false", "evals": "false", "opening": "false", "finished": "true",
    }  # fmt: skip
    return f"{terms.lichess}/api/games/user/{quote(wanted.username, safe='')}?{urlencode(asked)}"
