"""The statistics of a club computed a second time, from the rules in docs/systems/stats.md and nothing else.

Matches are replayed one by one, in order, with plain counters; there is no set, no window and no SQL. What comes
out has the shape of the tables, as {table: {key: the other columns}}, so that a test compares with ==.
"""

import datetime
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from worker.demo.club import Club, Match, PlayerMatch, Season

DEFAULTS = {
    "points_win": 20,
    "points_draw": 10,
    "points_loss": -10,
    "points_goal": 2,
    "points_clean_sheet": 10,
    "points_heavy_win": 10,
    "points_heavy_loss": -10,
    "heavy_margin": 4,
    "hat_trick_goals": 3,
    "season_minimum_games": 5,
    "honours_size": 3,
    "hall_of_fame_minimum_games": 20,
    "hall_of_fame_size": 10,
    "recent_matches": 5,
    "race_size": 10,
    "power_half_life_days": 90,
    "power_minimum_games": 5,
    "power_trend_days": 30,
}
RUNS = ("win", "unbeaten", "losing", "scoring", "attendance")
Row = dict[str, Any]
Table = dict[tuple[Any, ...], Row]


def rounded(value: Fraction | int, digits: int) -> Decimal:
    """Half away from zero, exactly."""
    scaled = abs(Fraction(value)) * 10**digits
    whole = int(scaled + Fraction(1, 2))
    return Decimal(whole if value >= 0 else -whole).scaleb(-digits)


@dataclass
class Game:
    """One player in one match."""

    match: Match
    number: int  # of the match in the club's life
    half: int
    team: str
    goals: int
    scored: int
    conceded: int
    heavy: bool
    points: int
    runs: dict[str, int] = field(default_factory=dict)

    @property
    def letter(self) -> str:
        return "W" if self.scored > self.conceded else "D" if self.scored == self.conceded else "L"


class Replay:
    """One club, replayed. `games` holds each player's matches in order, ringers apart."""

    def __init__(self, club: Club, tenant_id: object, settings: Mapping[str, int] | None = None) -> None:
        self.rule = DEFAULTS | dict(settings or {})
        self.all_matches = [match for match in club.matches if match.tenant_id == tenant_id]
        self.seasons = {season.id: season for season in club.seasons if season.tenant_id == tenant_id}
        self.matches = sorted(
            (match for match in self.all_matches if match.status == "finished"),
            key=lambda match: (match.played_on, match.id),
        )
        people = [player for player in club.players if player.tenant_id == tenant_id]
        self.retired = {player.id for player in people if player.retired}
        ringers = {player.id for player in people if player.ringer}
        self.line_ups: dict[int, list[PlayerMatch]] = defaultdict(list)
        for entry in club.player_matches:
            if entry.tenant_id == tenant_id and entry.player_id not in ringers:
                self.line_ups[entry.match_id].append(entry)
        self.games: dict[int, list[Game]] = defaultdict(list)
        self.by_match: dict[int, dict[int, Game]] = {}
        for number, match in enumerate(self.matches, 1):
            self._play(number, match)

    def _play(self, number: int, match: Match) -> None:
        here = self.by_match[match.id] = {}
        for entry in self.line_ups[match.id]:
            career = self.games[entry.player_id]
            game = self._game(number, match, entry)
            game.runs = runs_after(career[-1] if career else None, game)
            career.append(game)
            here[entry.player_id] = game

    def _game(self, number: int, match: Match, entry: PlayerMatch) -> Game:
        a, b = match.team_a_score or 0, match.team_b_score or 0
        scored, conceded = (a, b) if entry.team == "a" else (b, a)
        heavy = abs(a - b) >= self.rule["heavy_margin"]
        word = "win" if scored > conceded else "draw" if scored == conceded else "loss"
        points = self.rule[f"points_{word}"] + entry.goals * self.rule["points_goal"]
        if heavy:
            points += self.rule[f"points_heavy_{word}"]
        if conceded == 0:
            points += self.rule["points_clean_sheet"]
        half = half_of(self.seasons[match.season_id], match.played_on)
        return Game(match, number, half, entry.team, entry.goals, scored, conceded, heavy, points)

    # --- the tables ---------------------------------------------------------------------------------------------

    def season_stats(self) -> Table:
        table: Table = {}
        for season_id in self.seasons:
            for half in (0, 1, 2):
                tallies = {}
                for player_id, career in self.games.items():
                    games = [g for g in career if g.match.season_id == season_id and half in {0, g.half}]
                    if games:
                        tallies[player_id] = tally(games)
                enough = {p: t for p, t in tallies.items() if t["games"] >= self.rule["season_minimum_games"]}
                places = {player_id: place for place, player_id in ranking(enough, "points")}
                for player_id, row in tallies.items():
                    table[season_id, half, player_id] = row | {"rank": places.get(player_id)}
        return table

    def all_time_stats(self) -> Table:
        return {
            (player_id,): tally(career)
            | {"first_match_on": career[0].match.played_on, "last_match_on": career[-1].match.played_on}
            for player_id, career in self.games.items()
        }

    def hall_of_fame(self) -> Table:
        table: Table = {}
        members = {
            player_id: row
            for (player_id,), row in self.all_time_stats().items()
            if row["games"] >= self.rule["hall_of_fame_minimum_games"] and player_id not in self.retired
        }
        for category in ("games", "goals", "wins", "clean_sheets", "points", "points_per_game", "win_rate"):
            positive = {player_id: row for player_id, row in members.items() if row[category] > 0}
            for place, player_id in ranking(positive, category)[: self.rule["hall_of_fame_size"]]:
                table[category, place] = {"player_id": player_id, "value": positive[player_id][category]}
        return table

    def recent_performance(self) -> Table:
        table: Table = {}
        for player_id, career in self.games.items():
            if player_id in self.retired:
                continue
            last = career[-self.rule["recent_matches"] :]
            counts = tally(last)
            table[player_id,] = {
                name: counts[name] for name in ("games", "wins", "draws", "losses", "goals", "points")
            } | {
                "form": "".join(game.letter for game in last),
                "last_match_id": last[-1].match.id,
                "last_match_on": last[-1].match.played_on,
            }
        return table

    def personal_bests(self) -> Table:
        table: Table = {}
        for player_id, career in self.games.items():
            best: Counter[str] = Counter()
            for game in career:
                for category, value, least in marks_of(game):
                    if value >= least and value > best[category]:
                        previous = best[category] if best[category] >= least else None
                        table[player_id, category, game.match.id] = {"value": value, "previous": previous}
                        best[category] = value
        return table

    def match_report(self) -> Table:
        bests, news = self._bests_by_match(), self._record_story()[0]
        table: Table = {}
        for match in self.matches:
            a, b = match.team_a_score or 0, match.team_b_score or 0
            here = self.by_match[match.id]
            top = max((game.goals for game in here.values()), default=0)
            table[match.id,] = {
                "season_id": match.season_id,
                "played_on": match.played_on,
                "winner": "a" if a > b else "b" if b > a else None,
                "margin": max(a, b) - min(a, b),
                "goals": a + b,
                "player_of_the_match": star_of(here),
                "top_scorer": min(p for p, game in here.items() if game.goals == top) if top else None,
                "top_scorer_goals": top,
                "personal_bests": [best for best in bests[match.id] if best["previous"] is not None],
                "records": news[match.id],
            }
        return table

    def season_honours(self) -> Table:
        table: Table = {}
        for season_id in self.seasons:
            tallies = {}
            for player_id, career in self.games.items():
                games = [game for game in career if game.match.season_id == season_id]
                if games:
                    awards = sum(star_of(self.by_match[game.match.id]) == player_id for game in games)
                    tallies[player_id] = tally(games) | {"awards": awards}
            decided = all(m.status == "finished" for m in self.all_matches if m.season_id == season_id)
            for honour, value, needed, least in (
                ("champion", "points", "games", self.rule["season_minimum_games"]),
                ("top_scorer", "goals", "goals", 1),
                ("player_of_the_match", "awards", "awards", 1),
            ):
                eligible = {player_id: row for player_id, row in tallies.items() if row[needed] >= least}
                for place, player_id in ranking(eligible, value)[: self.rule["honours_size"]]:
                    table[season_id, honour, place] = {
                        "player_id": player_id,
                        "value": eligible[player_id][value],
                        "decided": decided,
                    }
        return table

    def records(self) -> Table:
        return {(record,): row for record, row in self._record_story()[1].items()}

    def player_profile_stats(self) -> Table:
        table: Table = {}
        for player_id, career in self.games.items():
            last, goals = career[-1], sum(game.goals for game in career)
            mates = Counter(
                mate
                for game in career
                for mate, other in self.by_match[game.match.id].items()
                if mate != player_id and other.team == game.team
            )
            favourite = min(mates, key=lambda mate: (-mates[mate], mate), default=None)
            current = last.runs | {"attendance": last.runs["attendance"] if last.number == len(self.matches) else 0}
            table[player_id,] = {
                "games": len(career),
                "seasons": len({game.match.season_id for game in career}),
                "goals": goals,
                "goals_per_game": rounded(Fraction(goals, len(career)), 2),
                "hat_tricks": sum(game.goals >= self.rule["hat_trick_goals"] for game in career),
                "first_match_on": career[0].match.played_on,
                "last_match_on": last.match.played_on,
                **{f"current_{run}": current[run] for run in RUNS},
                **{f"longest_{run}": max(game.runs[run] for game in career) for run in RUNS},
                "favourite_teammate": favourite,
                "games_together": mates[favourite] if favourite is not None else 0,
            }
        return table

    def season_race_data(self) -> Table:
        if not self.matches:
            return {}
        season_id = self.matches[-1].season_id
        rounds = [match for match in self.matches if match.season_id == season_id]
        final = self._standing(rounds)
        leaders = [player_id for _, player_id in ranking(final, "points")][: self.rule["race_size"]]
        table: Table = {}
        for number, match in enumerate(rounds, 1):
            standing = self._standing(rounds[:number])
            nobody = {"points": 0, "wins": 0, "games": 0}
            followed = {player_id: standing.get(player_id, nobody) for player_id in leaders}
            for position, player_id in ranking(followed, "points"):
                table[season_id, number, player_id] = {
                    "match_id": match.id,
                    "points": followed[player_id]["points"],
                    "position": position,
                }
        return table

    def player_power_rating(self) -> Table:
        if not self.matches:
            return {}
        latest = self.matches[-1].played_on
        earlier = latest - datetime.timedelta(days=self.rule["power_trend_days"])
        weights = {match.id: self._weight((latest - match.played_on).days) for match in self.matches}
        rated: dict[int, Row] = {}
        for player_id, career in self.games.items():
            rating = weighed([(weights[g.match.id], g.points) for g in career])
            if player_id in self.retired or len(career) < self.rule["power_minimum_games"] or rating is None:
                continue
            before = weighed([(weights[g.match.id], g.points) for g in career if g.match.played_on <= earlier])
            present = sum(weights[g.match.id] for g in career)
            rated[player_id] = {
                "games": len(career),
                "rating": rating,
                "goal_threat": weighed([(weights[g.match.id], g.goals) for g in career]),
                "participation": rounded(100 * present / sum(weights.values()), 1),
                "earlier_rating": before,
                "trend": rating - (rating if before is None else before),
            }
        wins = {player_id: {"wins": sum(g.letter == "W" for g in self.games[player_id])} for player_id in rated}
        places = ranking({player_id: row | wins[player_id] for player_id, row in rated.items()}, "rating")
        return {(player_id,): rated[player_id] | {"rank": place} for place, player_id in places}

    # --- helpers ------------------------------------------------------------------------------------------------

    def _bests_by_match(self) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = defaultdict(list)
        for (player_id, category, match_id), row in sorted(self.personal_bests().items()):
            found[match_id].append({"player_id": player_id, "category": category, **row})
        return found

    def _record_story(self) -> tuple[dict[int, list[Row]], dict[str, Row]]:
        """Match by match: what was broken or equaled, and who holds what at the end."""
        bests = self._bests_by_match()
        standing: dict[str, Row] = {}
        news: dict[int, list[Row]] = defaultdict(list)
        for match in self.matches:
            a, b = match.team_a_score or 0, match.team_b_score or 0
            marks: dict[str, list[tuple[int | None, int]]] = defaultdict(list)
            if a != b:
                marks["biggest_win"].append((None, abs(a - b)))
            if a + b:
                marks["most_goals"].append((None, a + b))
            for best in bests[match.id]:
                marks[f"player_{best['category']}"].append((best["player_id"], best["value"]))
            for record, candidates in sorted(marks.items()):
                value = max(value for _, value in candidates)
                holders = sorted(player_id for player_id, mark in candidates if mark == value)
                old = standing[record]["value"] if record in standing else None
                if old is not None and value >= old:
                    outcome = "broken" if value > old else "equaled"
                    news[match.id] += [
                        {"record": record, "player_id": p, "value": value, "previous": old, "outcome": outcome}
                        for p in holders
                    ]
                if old is None or value > old:
                    standing[record] = {"value": value, "match_id": match.id, "player_id": holders[0]}
        return news, standing

    def _standing(self, matches: Iterable[Match]) -> dict[int, Row]:
        played: dict[int, list[Game]] = defaultdict(list)
        for match in matches:
            for player_id, game in self.by_match[match.id].items():
                if player_id not in self.retired:
                    played[player_id].append(game)
        return {player_id: tally(games) for player_id, games in played.items()}

    def _weight(self, days: int) -> Fraction:
        exact = Decimal(f"{0.5 ** (days / self.rule['power_half_life_days']):.15g}")
        return Fraction(exact.quantize(Decimal("1e-12"), rounding=ROUND_HALF_UP))


def half_of(season: Season, day: datetime.date) -> int:
    return 2 if day >= season.half_on else 1


def runs_after(before: Game | None, game: Game) -> dict[str, int]:
    going_on = {
        "win": game.letter == "W",
        "unbeaten": game.letter != "L",
        "losing": game.letter == "L",
        "scoring": game.goals > 0,
    }
    runs = {run: (before.runs[run] if before else 0) + 1 if on else 0 for run, on in going_on.items()}
    followed = before is not None and before.number == game.number - 1
    return runs | {"attendance": before.runs["attendance"] + 1 if before and followed else 1}


def marks_of(game: Game) -> list[tuple[str, int, int]]:
    """What could be a best of its player: category, value, and the least that counts."""
    return [("goals", game.goals, 1), *((f"{run}_streak", game.runs[run], 2) for run in RUNS)]


def star_of(games: Mapping[int, Game]) -> int | None:
    return min(
        games, key=lambda player_id: (-games[player_id].points, -games[player_id].goals, player_id), default=None
    )


def tally(games: list[Game]) -> Row:
    letters = Counter(game.letter for game in games)
    points = sum(game.points for game in games)
    return {
        "games": len(games),
        "wins": letters["W"],
        "draws": letters["D"],
        "losses": letters["L"],
        "heavy_wins": sum(game.heavy and game.letter == "W" for game in games),
        "heavy_losses": sum(game.heavy and game.letter == "L" for game in games),
        "clean_sheets": sum(game.conceded == 0 for game in games),
        "goals": sum(game.goals for game in games),
        "goal_difference": sum(game.scored - game.conceded for game in games),
        "points": points,
        "points_per_game": rounded(Fraction(points, len(games)), 2),
        "win_rate": rounded(Fraction(100 * letters["W"], len(games)), 1),
    }


def ranking(rows: Mapping[int, Row], value: str) -> list[tuple[int, int]]:
    """(place, player), from the first: higher value, more wins, fewer games, lower id."""
    order = sorted(rows, key=lambda p: (-rows[p][value], -rows[p]["wins"], rows[p]["games"], p))
    return list(enumerate(order, 1))


def weighed(pairs: list[tuple[Fraction, int]]) -> Decimal | None:
    total = sum(weight for weight, _ in pairs)
    return rounded(sum(weight * value for weight, value in pairs) / total, 2) if total else None
