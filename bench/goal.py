"""Goals are text for people, and read here to tell whether they hold.

A goal is one or more bounds with `, ` between, each `[NAME] ≥|≤|<|> NUMBER [ANYTHING]`. With `of` after the number the
bound is for the ratio, with a name before it for the figure beside of that name, else for the value. What has no bound,
such as `stretch 0.8`, decides nothing.
"""

import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SIGNS = {"≥": operator.ge, "≤": operator.le, "<": operator.lt, ">": operator.gt}
BOUND = re.compile(r"(?:(?P<name>\w+) )?(?P<sign>[≥≤<>]) (?P<number>\d[\d,]*(?:\.\d+)?)(?P<rest>.*)")


@dataclass(frozen=True)
class Bound:
    """`of` is `value`, `ratio` or the name of a figure beside."""

    of: str
    sign: str
    number: float


def bounds(goal: str) -> Iterator[Bound]:
    """What a goal asks for."""
    for part in goal.split(", "):
        if found := BOUND.fullmatch(part):
            of = found["name"] or ("ratio" if re.search(r"\bof\b", found["rest"]) else "value")
            yield Bound(of, found["sign"], float(found["number"].replace(",", "")))


def holds(goal: str, figures: Mapping[str, float | None]) -> bool | None:
    """Whether every bound holds; None when there is none, or what one speaks of was not measured."""
    asked = [(bound, figures.get(bound.of)) for bound in bounds(goal)]
    if not asked or any(value is None for _, value in asked):
        return None
    return all(SIGNS[bound.sign](value, bound.number) for bound, value in asked if value is not None)
