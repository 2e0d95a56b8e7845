"""A made-up football club, drawn by `generate` from a seed; `worker.demo.tables` writes it.

The same seed gives the same club, to the last goal. Players come and go, some turn up every week, some are guests
(ringers), and better players make their team score more. The last few matches of each club are left scheduled, with
their line-ups and goals noted, so that a demo has something to finish.
"""

import datetime
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SIDE = 8  # players in a team, sixteen in a match
SCHEDULED = 5  # matches left to be finished
RINGER_EVERY = 16  # one player in sixteen is a guest, so even the smallest club has one
FIRST_YEAR = 2016


class Tenant(NamedTuple):
    id: uuid.UUID
    name: str
    active: bool


class Player(NamedTuple):
    tenant_id: uuid.UUID
    id: int
    name: str
    ringer: bool
    retired: bool


class Season(NamedTuple):
    tenant_id: uuid.UUID
    id: int
    starts_on: datetime.date
    half_on: datetime.date
    ends_on: datetime.date


class Match(NamedTuple):
    tenant_id: uuid.UUID
    id: int
    season_id: int
    played_on: datetime.date
    status: str
    team_a_score: int | None
    team_b_score: int | None
    finished_at: datetime.datetime | None


class PlayerMatch(NamedTuple):
    tenant_id: uuid.UUID
    match_id: int
    player_id: int
    team: str
    goals: int


@dataclass(frozen=True)
class Club:
    """Rows in the order of the columns of schema `club`; several tenants where so asked, with the same numbers."""

    tenants: list[Tenant] = field(default_factory=list)
    players: list[Player] = field(default_factory=list)
    seasons: list[Season] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    player_matches: list[PlayerMatch] = field(default_factory=list)


@dataclass(frozen=True)
class _Character:
    """What makes a player: when in the club's life, how often, how well."""

    id: int
    joined: float
    left: float
    zeal: float
    skill: float


def generate(seed: int, players: int = 200, matches: int = 2_000, tenants: int = 1, seasons: int = 10) -> Club:
    """Draw `tenants` clubs of so many players and finished matches each (and `SCHEDULED` more to come)."""
    if players < 2 * SIDE:
        raise ValueError(f"a match needs {2 * SIDE} players, not {players}")
    if not 1 <= seasons <= matches:
        raise ValueError(f"{matches} matches cannot fill {seasons} seasons")
    chance = random.Random(seed)
    club = Club()
    for number in range(1, tenants + 1):
        tenant = Tenant(uuid.UUID(int=chance.getrandbits(128), version=4), f"Club {number}", True)
        _Draw(chance, tenant, matches, seasons).into(club, players)
    return club


class _Draw:
    """One tenant being drawn: its chance, its seasons, and how its matches are spread over them."""

    def __init__(self, chance: random.Random, tenant: Tenant, matches: int, seasons: int) -> None:
        self.chance = chance
        self.tenant = tenant
        self.finished = matches
        self.total = matches + SCHEDULED
        self.seasons = [_season(tenant, index) for index in range(seasons)]

    def into(self, club: Club, players: int) -> None:
        cast = [_character(self.chance, player_id) for player_id in range(1, players + 1)]
        club.tenants.append(self.tenant)
        club.players.extend(self.player(character) for character in cast)
        club.seasons.extend(self.seasons)
        for index in range(self.total):
            entries = self.play(index, self.line_up(cast, index / self.total))
            club.player_matches.extend(entries)
            club.matches.append(self.match(index, entries))

    def player(self, character: _Character) -> Player:
        ringer = character.id % RINGER_EVERY == 0
        return Player(self.tenant.id, character.id, _name(self.chance), ringer, retired=character.left <= 1.0)

    def line_up(self, cast: Sequence[_Character], moment: float) -> list[_Character]:
        """Sixteen of those who are in the club at this moment, the eager ones more often, in two random teams.

        A weighted sample without replacement: the largest of random ** (1 / weight). Who has left or not yet joined
        weighs next to nothing, and helps out when the club is small.
        """

        def eagerness(character: _Character) -> float:
            present = character.joined <= moment < character.left
            return float(self.chance.random() ** (1 / (character.zeal if present else 0.0005)))

        chosen = sorted(cast, key=eagerness, reverse=True)[: 2 * SIDE]
        self.chance.shuffle(chosen)
        return chosen

    def play(self, index: int, line_up: Sequence[_Character]) -> list[PlayerMatch]:
        """Each player has five tries at a goal; a strong team gives its players better ones."""
        sides = {"a": line_up[:SIDE], "b": line_up[SIDE:]}
        strength = {team: sum(character.skill for character in side) / SIDE for team, side in sides.items()}
        entries = []
        for team, other in (("a", "b"), ("b", "a")):
            luck = self.chance.uniform(0.03, 0.11) * strength[team] / strength[other]
            for character in sides[team]:
                goals = sum(self.chance.random() < luck * character.skill for _ in range(5))
                entries.append(PlayerMatch(self.tenant.id, index + 1, character.id, team, goals))
        return entries

    def match(self, index: int, entries: Sequence[PlayerMatch]) -> Match:
        """The score is the goals of the players and, now and then, an own goal."""
        season, played_on = self.day(index)
        own_goals = self.chance.random() < 0.1, self.chance.random() < 0.1
        if index >= self.finished:
            return Match(self.tenant.id, index + 1, season.id, played_on, "scheduled", None, None, None)
        score_a, score_b = (
            sum(entry.goals for entry in entries if entry.team == team) + own
            for team, own in zip("ab", own_goals, strict=True)
        )
        whistle = datetime.datetime.combine(played_on, datetime.time(20), datetime.UTC)
        return Match(self.tenant.id, index + 1, season.id, played_on, "finished", score_a, score_b, whistle)

    def day(self, index: int) -> tuple[Season, datetime.date]:
        """The matches are spread evenly over the seasons, and over the days of a season."""
        number, position = divmod(index * len(self.seasons), self.total)
        season = self.seasons[number]
        days = (season.ends_on - season.starts_on).days
        return season, season.starts_on + datetime.timedelta(days=days * position // self.total)


def _character(chance: random.Random, player_id: int) -> _Character:
    """Half of the cast is there from the first day, half comes later; a quarter leaves before the end."""
    joined = 0.0 if chance.random() < 0.5 else chance.uniform(0.0, 0.8)
    left = chance.uniform(joined + 0.1, 1.0) if chance.random() < 0.25 else 1.1
    zeal = 6.0 if chance.random() < 0.05 else chance.uniform(0.05, 1.0) ** 2  # one in twenty hardly misses a match
    return _Character(player_id, joined, left, zeal, chance.uniform(0.5, 1.5))


def _name(chance: random.Random) -> str:
    """Two invented words: nobody is called so."""

    def word(syllables: int) -> str:
        return "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(syllables)).capitalize()

    return f"{word(2)} {word(3)}"


def _season(tenant: Tenant, index: int) -> Season:
    def day(month: int, number: int) -> datetime.date:
        return datetime.date(FIRST_YEAR + index, month, number)

    return Season(tenant.id, index + 1, day(1, 1), day(7, 1), day(12, 31))
