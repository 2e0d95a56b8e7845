"""A season of four matches, two against two, with every figure worked out by hand.

    | match | day    | team a  | team b  | score | goals                          | points                       |
    |-------|--------|---------|---------|-------|--------------------------------|------------------------------|
    | 1     | 11 Jan | 1, 2    | 3, (5)  | 5 : 1 | 1: 3, 2: 1, own goal, 3: 1     | 1: 36, 2: 32, 3: -18         |
    | 2     | 21 Jan | 1, 3    | 2, 4    | 2 : 2 | 1: 1, 3: 1, 4: 2               | 1: 12, 3: 12, 2: 10, 4: 14   |
    | 3     | 31 Jan | 1, 4    | 2, 6    | 0 : 2 | 2: 1, 6: 1                     | 1, 4: -10, 2, 6: 32          |
    | 4     | 10 Feb | 1, 2    | 3, 4    | 6 : 1 | 1: 3, 2: 3, 4: 1               | 1, 2: 36, 3: -20, 4: -18     |
    | 5     | 20 Feb | 1       | 6       | 1 : 0 | being played: counts for nothing                              |

Player 5 is a ringer and player 6 has retired. The second half begins on the day of match 4. Points by default: won 20,
drawn 10, lost -10, heavy (by four) 10 more or less, clean sheet 10, a goal 2; so player 1 in match 1 has
20 + 10 + 3 * 2 = 36.
"""

import datetime
import uuid
from decimal import Decimal

import asyncpg
import pytest

from tests.jobs.stats_database import configure, install, refresh, table
from worker.demo.club import Club, Match, Player, PlayerMatch, Season, Tenant
from worker.demo.tables import load

TENANT = uuid.UUID(int=1)
SMALL = {
    "season_minimum_games": 2,
    "honours_size": 2,
    "hall_of_fame_minimum_games": 2,
    "hall_of_fame_size": 2,
    "recent_matches": 3,
    "race_size": 2,
    "power_minimum_games": 2,
    "power_half_life_days": 10,
    "power_trend_days": 10,
}
LINE_UPS = {  # match: (player, team, goals)
    1: [(1, "a", 3), (2, "a", 1), (3, "b", 1), (5, "b", 0)],
    2: [(1, "a", 1), (3, "a", 1), (2, "b", 0), (4, "b", 2)],
    3: [(1, "a", 0), (4, "a", 0), (2, "b", 1), (6, "b", 1)],
    4: [(1, "a", 3), (2, "a", 3), (3, "b", 0), (4, "b", 1)],
    5: [(1, "a", 1), (6, "b", 0)],
}


def day(month: int, number: int) -> datetime.date:
    return datetime.date(2026, month, number)


DAYS = {1: day(1, 11), 2: day(1, 21), 3: day(1, 31), 4: day(2, 10)}
SCORES = {1: (5, 1), 2: (2, 2), 3: (0, 2), 4: (6, 1)}


def season() -> Club:
    return Club(
        tenants=[Tenant(TENANT, "By hand", True)],
        players=[Player(TENANT, n, f"Player {n}", n == 5, n == 6) for n in range(1, 7)],
        seasons=[Season(TENANT, 1, day(1, 1), day(2, 10), day(2, 28))],
        matches=[
            *(Match(TENANT, n, 1, DAYS[n], "finished", *SCORES[n], None) for n in SCORES),
            Match(TENANT, 5, 1, day(2, 20), "scheduled", 1, 0, None),
        ],
        player_matches=[PlayerMatch(TENANT, n, *entry) for n, entries in LINE_UPS.items() for entry in entries],
    )


@pytest.fixture
async def played(connection: asyncpg.Connection) -> asyncpg.Connection:
    await install(connection)
    await load(connection, season())
    await configure(connection, TENANT, SMALL)
    await refresh(connection, TENANT)
    return connection


async def rows(connection: asyncpg.Connection, name: str) -> dict[tuple, tuple]:
    """{key: values}, the values in the order of the table's columns."""
    return {key: tuple(row.values()) for key, row in (await table(connection, name, TENANT)).items()}


def number(text: str) -> Decimal:
    return Decimal(text)


async def test_season_stats(played):
    found = await rows(played, "season_stats")
    # games, wins, draws, losses, heavy wins, heavy losses, clean sheets, goals, difference, points, a game, %, rank
    full = {key[2]: row for key, row in found.items() if key[1] == 0}
    assert full == {
        1: (4, 2, 1, 1, 2, 0, 0, 7, 7, 74, number("18.50"), 50, 2),  # 36 + 12 - 10 + 36; +4 +0 -2 +5
        2: (4, 3, 1, 0, 2, 0, 1, 5, 11, 110, number("27.50"), 75, 1),  # 32 + 10 + 32 + 36
        3: (3, 0, 1, 2, 0, 2, 0, 2, -9, -26, number("-8.67"), 0, 4),  # -26 / 3 = -8.666…
        4: (3, 0, 1, 2, 0, 1, 0, 3, -7, -14, number("-4.67"), 0, 3),
        6: (1, 1, 0, 0, 0, 0, 1, 1, 2, 32, number("32.00"), 100, None),  # one game is too few for a rank
    }
    points_and_rank = {key[1:]: (row[9], row[12]) for key, row in found.items() if key[1] > 0}
    assert points_and_rank == {
        (1, 1): (38, 2),
        (1, 2): (74, 1),
        (1, 3): (-6, 4),
        (1, 4): (4, 3),
        (1, 6): (32, None),
        (2, 1): (36, None),  # the second half is one match long: nobody is ranked yet
        (2, 2): (36, None),
        (2, 3): (-20, None),
        (2, 4): (-18, None),
    }


async def test_all_time_stats(played):
    found = await rows(played, "all_time_stats")
    assert sorted(found) == [(1,), (2,), (3,), (4,), (6,)]  # the retired stay, the ringer was never there
    assert found[2,] == (4, 3, 1, 0, 2, 0, 1, 5, 11, 110, number("27.50"), 75, day(1, 11), day(2, 10))
    assert found[4,] == (3, 0, 1, 2, 0, 1, 0, 3, -7, -14, number("-4.67"), 0, day(1, 21), day(2, 10))


async def test_hall_of_fame(played):
    assert await rows(played, "hall_of_fame") == {
        ("games", 1): (2, 4),  # as many games as player 1, more wins
        ("games", 2): (1, 4),
        ("goals", 1): (1, 7),
        ("goals", 2): (2, 5),
        ("wins", 1): (2, 3),
        ("wins", 2): (1, 2),
        ("clean_sheets", 1): (2, 1),  # player 6 had one as well, and has retired
        ("points", 1): (2, 110),
        ("points", 2): (1, 74),
        ("points_per_game", 1): (2, number("27.50")),
        ("points_per_game", 2): (1, number("18.50")),
        ("win_rate", 1): (2, 75),
        ("win_rate", 2): (1, 50),
    }


async def test_recent_performance(played):
    # games, wins, draws, losses, goals, points, form, last match
    assert await rows(played, "recent_performance") == {
        (1,): (3, 1, 1, 1, 4, 38, "DLW", 4, day(2, 10)),
        (2,): (3, 2, 1, 0, 4, 78, "DWW", 4, day(2, 10)),
        (3,): (3, 0, 1, 2, 2, -26, "LDL", 4, day(2, 10)),
        (4,): (3, 0, 1, 2, 3, -14, "DLL", 4, day(2, 10)),
    }


async def test_personal_bests(played):
    # value, what it surpassed; player 1 scores three in match 4 as well, which surpasses nothing
    assert await rows(played, "personal_bests") == {
        (1, "goals", 1): (3, None),
        (1, "unbeaten_streak", 2): (2, None),
        (1, "scoring_streak", 2): (2, None),
        (1, "attendance_streak", 2): (2, None),
        (1, "attendance_streak", 3): (3, 2),
        (1, "attendance_streak", 4): (4, 3),
        (2, "goals", 1): (1, None),
        (2, "goals", 4): (3, 1),
        (2, "win_streak", 4): (2, None),
        (2, "unbeaten_streak", 2): (2, None),
        (2, "unbeaten_streak", 3): (3, 2),
        (2, "unbeaten_streak", 4): (4, 3),
        (2, "scoring_streak", 4): (2, None),
        (2, "attendance_streak", 2): (2, None),
        (2, "attendance_streak", 3): (3, 2),
        (2, "attendance_streak", 4): (4, 3),
        (3, "goals", 1): (1, None),
        (3, "scoring_streak", 2): (2, None),
        (3, "attendance_streak", 2): (2, None),  # missed match 3, so match 4 begins anew
        (4, "goals", 2): (2, None),
        (4, "losing_streak", 4): (2, None),
        (4, "attendance_streak", 3): (2, None),
        (4, "attendance_streak", 4): (3, 2),
        (6, "goals", 3): (1, None),
    }


async def test_match_report(played):
    reports = await table(played, "match_report", TENANT)
    figures = {key[0]: tuple(row.values())[2:8] for key, row in reports.items()}
    # winner, margin, goals, player of the match, top scorer and goals
    assert figures == {
        1: ("a", 4, 6, 1, 1, 3),
        2: (None, 0, 4, 4, 4, 2),
        3: ("b", 2, 2, 2, 2, 1),  # 2 and 6 have the same points and goals: the lower id
        4: ("a", 5, 7, 1, 1, 3),
    }
    names = ("player_id", "category", "value", "previous")
    bests = {
        key[0]: [tuple(best[name] for name in names) for best in row["personal_bests"]] for key, row in reports.items()
    }
    assert bests == {
        1: [],
        2: [],  # first marks are no news
        3: [(1, "attendance_streak", 3, 2), (2, "attendance_streak", 3, 2), (2, "unbeaten_streak", 3, 2)],
        4: [
            (1, "attendance_streak", 4, 3),
            (2, "attendance_streak", 4, 3),
            (2, "goals", 3, 1),
            (2, "unbeaten_streak", 4, 3),
            (4, "attendance_streak", 3, 2),
        ],
    }


async def test_match_report_compares_with_the_records_before_the_match(played):
    reports = await table(played, "match_report", TENANT)
    news = {key[0]: [tuple(item[name] for name in NEWS) for item in row["records"]] for key, row in reports.items()}
    assert news == {
        1: [],
        2: [],
        3: [
            ("player_attendance_streak", 1, 3, 2, "broken"),
            ("player_attendance_streak", 2, 3, 2, "broken"),
            ("player_unbeaten_streak", 2, 3, 2, "broken"),
        ],
        4: [
            ("biggest_win", None, 5, 4, "broken"),
            ("most_goals", None, 7, 6, "broken"),
            ("player_attendance_streak", 1, 4, 3, "broken"),
            ("player_attendance_streak", 2, 4, 3, "broken"),
            ("player_goals", 2, 3, 3, "equaled"),  # what player 1 had done in match 1
            ("player_scoring_streak", 2, 2, 2, "equaled"),
            ("player_unbeaten_streak", 2, 4, 3, "broken"),
        ],
    }


async def test_the_player_of_the_match_has_more_goals_when_the_points_are_equal(played):
    await configure(played, TENANT, {"points_win": 4, "points_loss": 2})
    await played.execute("insert into club.match values ($1, 6, 1, '2026-02-21', 'finished', 3, 2)", TENANT)
    await played.execute("insert into club.player_match values ($1, 6, 1, 'a', 1), ($1, 6, 2, 'b', 2)", TENANT)
    await refresh(played, TENANT)
    report = (await table(played, "match_report", TENANT))[6,]
    assert report["player_of_the_match"] == 2  # 2 + 2 * 2 points and two goals, against 4 + 2 and one


NEWS = ("record", "player_id", "value", "previous", "outcome")


async def test_season_honours_and_records(played):
    assert await rows(played, "season_honours") == {
        (1, "champion", 1): (2, 110, False),  # not decided: match 5 is not over
        (1, "champion", 2): (1, 74, False),
        (1, "top_scorer", 1): (1, 7, False),
        (1, "top_scorer", 2): (2, 5, False),
        (1, "player_of_the_match", 1): (1, 2, False),
        (1, "player_of_the_match", 2): (2, 1, False),  # one award as player 4, but more wins
    }
    assert await rows(played, "records") == {  # value, match, player
        ("biggest_win",): (5, 4, None),
        ("most_goals",): (7, 4, None),
        ("player_goals",): (3, 1, 1),  # equaled later, held by who was first
        ("player_win_streak",): (2, 4, 2),
        ("player_unbeaten_streak",): (4, 4, 2),
        ("player_losing_streak",): (2, 4, 4),
        ("player_scoring_streak",): (2, 2, 1),
        ("player_attendance_streak",): (4, 4, 1),
    }


async def test_player_profile_stats(played):
    # games, seasons, goals, a game, hat-tricks, first, last, five current runs, five longest, favourite teammate, games
    # runs in the order: win, unbeaten, losing, scoring, attendance
    assert await rows(played, "player_profile_stats") == {
        (1,): (4, 1, 7, number("1.75"), 2, day(1, 11), day(2, 10), 1, 1, 0, 1, 4, 1, 2, 1, 2, 4, 2, 2),
        (2,): (4, 1, 5, number("1.25"), 1, day(1, 11), day(2, 10), 2, 4, 0, 2, 4, 2, 4, 0, 2, 4, 1, 2),
        (3,): (3, 1, 2, number("0.67"), 0, day(1, 11), day(2, 10), 0, 0, 1, 0, 1, 0, 1, 1, 2, 2, 1, 1),
        (4,): (3, 1, 3, number("1.00"), 0, day(1, 21), day(2, 10), 0, 0, 2, 1, 3, 0, 1, 2, 1, 3, 1, 1),
        (6,): (1, 1, 1, number("1.00"), 0, day(1, 31), day(1, 31), 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 2, 1),
    }


async def test_season_race_data(played):
    # season, match number, player: match, points so far, position
    assert await rows(played, "season_race_data") == {
        (1, 1, 1): (1, 36, 1),
        (1, 1, 2): (1, 32, 2),
        (1, 2, 1): (2, 48, 1),
        (1, 2, 2): (2, 42, 2),
        (1, 3, 1): (3, 38, 2),
        (1, 3, 2): (3, 74, 1),
        (1, 4, 1): (4, 74, 2),
        (1, 4, 2): (4, 110, 1),
    }


async def test_power_ratings(played):
    # A half-life of ten days: the matches weigh 1/8, 1/4, 1/2 and 1, together 1.875.
    # Player 1: (36/8 + 12/4 - 10/2 + 36) / 1.875 = 38.5 / 1.875 = 20.53; up to 31 January 2.5 / 0.875 = 2.86.
    # Player 3 missed match 3: (-18/8 + 12/4 - 20) / 1.375 = -14.00; present 1.375 / 1.875 = 73.3 %.
    # games, rating, goals a match, participation, earlier rating, trend, rank
    assert await rows(played, "player_power_rating") == {
        (1,): (4, number("20.53"), number("1.93"), 100, number("2.86"), number("17.67"), 2),
        (2,): (4, number("31.20"), number("1.93"), 100, number("25.71"), number("5.49"), 1),
        (3,): (3, number("-14.00"), number("0.27"), number("73.3"), number("2.00"), number("-16.00"), 4),
        (4,): (3, number("-11.14"), number("0.86"), number("93.3"), number("-2.00"), number("-9.14"), 3),
    }
