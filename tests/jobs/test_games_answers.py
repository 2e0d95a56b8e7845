"""What platforms answer, read: games of both shapes, broken ends, and what is filtered out."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest

from tests.jobs.games import DAY, NOW, some
from worker.demo.platforms import Played, export
from worker.jobs.games import chess_com, lichess
from worker.jobs.games.game import CHUNK, Page, Wanted
from worker.outbound import Answer

ALL = Wanted("Ann", 0, NOW)


def rows(page: Page) -> list[dict[str, Any]]:
    return [row for chunk in page.chunks for row in orjson.loads(chunk)]


def line(**more: Any) -> dict[str, Any]:
    return {
        "id": "abc", "variant": "standard", "speed": "blitz", "createdAt": 1000, "status": "mate", "winner": "black",
        "players": {"white": {"user": {"name": "Ann", "id": "ann"}}, "black": {"user": {"name": "Ben", "id": "ben"}}},
        "pgn": "1. f3 e5 2. g4 Qh4# 0-1", **more,
    }  # fmt: skip


def month_game(**more: Any) -> dict[str, Any]:
    return {
        "url": "https://www.chess.com/game/live/1", "pgn": "1. e4 *", "end_time": 1, "time_class": "rapid",
        "rules": "chess", "white": {"username": "Ben", "result": "resigned"},
        "black": {"username": "ann", "result": "win"}, **more,
    }  # fmt: skip


def of_lichess(*lines: dict[str, Any]) -> Page:
    return lichess.parse(b"".join(orjson.dumps(each) + b"\n" for each in lines), ALL)


def of_chess_com(*games: dict[str, Any]) -> Page:
    return chess_com.parse(orjson.dumps({"games": games}), ALL)


def test_a_game_of_lichess() -> None:
    (row,) = rows(of_lichess(line()))
    assert row == {
        "url": "https://lichess.org/abc", "played_at": "1970-01-01T00:00:01+00:00", "kind": "blitz",
        "variant": "standard", "colour": "white", "result": "loss", "opponent": "Ben", "pgn": "1. f3 e5 2. g4 Qh4# 0-1",
    }  # fmt: skip


def test_a_game_of_chess_com() -> None:
    (row,) = rows(of_chess_com(month_game()))
    assert row == {
        "url": "https://www.chess.com/game/live/1", "played_at": "1970-01-01T00:00:01+00:00", "kind": "rapid",
        "variant": "standard", "colour": "black", "result": "win", "opponent": "Ben", "pgn": "1. e4 *",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"winner": "white"}, {"result": "win"}),
        ({"winner": None, "status": "draw"}, {"result": "draw"}),
        ({"speed": "ultraBullet"}, {"kind": "bullet"}),
        ({"speed": "correspondence"}, {"kind": "daily"}),
        ({"speed": "hyper"}, {"kind": "other"}),
        ({"variant": "crazyhouse"}, {"variant": "crazyhouse"}),
        ({"players": {"white": {"aiLevel": 3}, "black": {"user": {"name": "ann", "id": "ann"}}}},
         {"opponent": "level 3", "colour": "black", "result": "win"}),
        ({"players": {"white": {"user": {"name": "ANN", "id": "ann"}}, "black": {}}}, {"opponent": None}),
    ],
)  # fmt: skip
def test_what_lichess_says_in_our_words(more: dict[str, Any], expected: dict[str, Any]) -> None:
    (row,) = rows(of_lichess(line(**more)))
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("said", "result"),
    [("win", "win"), ("checkmated", "loss"), ("timeout", "loss"), ("abandoned", "loss"), ("agreed", "draw"),
     ("stalemate", "draw"), ("timevsinsufficient", "draw"), ("50move", "draw")],
)  # fmt: skip
def test_what_chess_com_says_in_our_words(said: str, result: str) -> None:
    (row,) = rows(of_chess_com(month_game(black={"username": "Ann", "result": said})))
    assert row["result"] == result


@pytest.mark.parametrize(
    "more", [{"status": "aborted"}, {"status": "started"}, {"players": {"white": {}, "black": {}}}], ids=str
)
def test_what_was_not_played_or_not_by_this_player_is_left_out(more: dict[str, Any]) -> None:
    page = of_lichess(line(**more))
    assert (page.chunks, page.seen, page.newest) == ([], 1, 1000), "what the next page begins with hangs on it"


def test_a_broken_end_is_left_out_and_said() -> None:
    games = some(5)
    whole = export(games, sort="dateAsc").body
    page = lichess.parse(whole[:-20], ALL)
    assert (len(rows(page)), page.broken) == (4, True)
    assert page.newest == sorted(game.at for game in games)[3]
    page = lichess.parse(whole, ALL)
    assert (len(rows(page)), page.broken) == (5, False)
    assert lichess.parse(whole[:-1], ALL).broken is False
    assert lichess.parse(b"", ALL) == Page([], 0, 0)


@pytest.mark.parametrize("body", [b"<html>\n", b'{"id": 1}\n', b'{"players": 7}\n'])
def test_what_is_no_export_is_an_error(body: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        lichess.parse(body, ALL)


def test_nothing_reaches_the_database_that_it_cannot_keep() -> None:
    (row,) = rows(of_lichess(line(pgn="1. e4 {\x00} *", id="x" * 900)))
    assert "\x00" not in row["pgn"]
    assert len(row["url"]) < 200


def test_pages_are_packed_by_the_hundred_oldest_first() -> None:
    page = lichess.parse(export([played(n) for n in range(250)]).body, ALL)
    assert [len(orjson.loads(chunk)) for chunk in page.chunks] == [CHUNK, CHUNK, 50]
    assert [row["played_at"] for row in rows(page)] == sorted(row["played_at"] for row in rows(page))


def played(number: int) -> Played:
    return Played("Ann", f"ben{number}", NOW - number * 1000, "1-0", "1. e4 *")


@pytest.mark.parametrize(
    ("filters", "left"),
    [({}, 3), ({"kind": ["blitz"]}, 2), ({"kind": ["blitz", "bullet"], "result": ["win"]}, 1),
     ({"colour": ["black"]}, 1), ({"result": ["draw"]}, 1), ({"kind": ["daily"]}, 0)],
)  # fmt: skip
def test_filters_by_kind_result_and_colour(filters: dict[str, list[str]], left: int) -> None:
    games = [
        line(id="1", winner="white"),
        line(id="2", winner=None, status="draw", speed="ultraBullet"),
        line(id="3", players={"white": {}, "black": {"user": {"id": "ann"}}}, winner="white"),
    ]
    body = b"".join(orjson.dumps(game) + b"\n" for game in games)
    assert len(rows(lichess.parse(body, Wanted("ann", 0, NOW, filters)))) == left


def test_the_span_is_kept_to_and_what_lies_outside_still_moves_the_cursor() -> None:
    games = some(10)
    wanted = Wanted("Ann", games[5].at, games[2].at)
    page = lichess.parse(export(games).body, wanted)
    assert len(rows(page)) == 4
    assert (page.newest, page.seen) == (games[0].at, 10)


def test_the_months_of_a_span() -> None:
    urls = [
        f"https://evil.example/pub/player/ann/games/{month}" for month in ("2025/11", "2026/02", "2025/12", "2026/01")
    ]
    body = orjson.dumps({"archives": [*urls, "https://api.chess.com/other", 7]})
    first, last = (int(datetime(*when, tzinfo=UTC).timestamp() * 1000) for when in ((2025, 12, 31), (2026, 1, 1)))
    assert chess_com.months(body, Wanted("ann", first, last)) == [202512, 202601]
    assert chess_com.months(body, Wanted("ann", 0, DAY)) == []


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("7", 7.0), ("0", 0.0), ("99999999999999", 999_999_999.0), ("soon", None), ("", None), ("-3", None), ("²", None)],
)
def test_retry_after_in_seconds(said: str, seconds: float | None) -> None:
    assert Answer(429, {"retry-after": said}, b"").retry_after == seconds


def test_retry_after_as_a_date() -> None:
    when = format_datetime(datetime.fromtimestamp(time.time(), UTC) + timedelta(hours=1), usegmt=True)
    seconds = Answer(429, {"retry-after": when}, b"").retry_after
    assert seconds is not None
    assert 3_000 < seconds <= 3_600
    assert Answer(429, {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, b"").retry_after == 0
