"""Small charts of what daemons counted: lines of p50 and p95, columns of what ended. Pure geometry."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from worker.web.pages.words import span

WIDTH, HEIGHT = 120.0, 24.0
KINDS = (("completed", "good"), ("other", "gone"), ("again", "again"), ("failed", "bad"))  # from the bottom up

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """What is shown: so many spans of so many seconds, the last one still open."""

    hours: int
    seconds: int

    @property
    def count(self) -> int:
        return self.hours * 3600 // self.seconds

    def slots(self, now: datetime) -> list[datetime]:
        """The beginnings of all spans, as worker.trends bins them."""
        zero = datetime(2000, 1, 1, tzinfo=UTC)
        last = zero + timedelta(seconds=int((now - zero).total_seconds()) // self.seconds * self.seconds)
        return [last - timedelta(seconds=self.seconds * n) for n in range(self.count, -1, -1)]


SPANS = {2: Span(2, 300), 6: Span(6, 300), 24: Span(24, 900), 168: Span(168, 7200)}


@dataclass(frozen=True)
class Line:
    """p50 as a line under the area of p95, in a box of WIDTH × HEIGHT; `told` is the same in words."""

    areas: tuple[str, ...]
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    last_p50: float | None
    last_p95: float | None
    told: str


@dataclass(frozen=True)
class Column:
    """One span of the throughput, in percent of the width; parts are (class, from the top, height) in percent."""

    x: float
    width: float
    parts: tuple[tuple[str, float, float], ...]
    told: str


def line(rows: Iterable[Row], what: str, slots: Sequence[datetime]) -> Line | None:
    """The chart of `wait` or `run`; None where nothing ended in these spans."""
    by_slot = {row["at"]: (row[f"{what}_p50"], row[f"{what}_p95"]) for row in rows if row[f"{what}_p95"] is not None}
    known = [(n, *by_slot[slot]) for n, slot in enumerate(slots) if slot in by_slot]
    if not known:
        return None
    most = max(p95 for _, _, p95 in known)
    least = min(p50 for _, p50, _ in known)
    height = _heights(least, most)
    step = WIDTH / max(len(slots) - 1, 1)
    stretches = _stretches(known)

    def place(n: int, value: float) -> tuple[float, float]:
        return round(n * step, 1), round(HEIGHT - 1 - height(value) * (HEIGHT - 3), 1)

    areas = tuple(_area([place(n, p95) for n, _, p95 in stretch]) for stretch in stretches if len(stretch) > 1)
    lines = tuple(_points([place(n, p50) for n, p50, _ in stretch]) for stretch in stretches if len(stretch) > 1)
    dots = tuple(place(stretch[0][0], stretch[0][2]) for stretch in stretches if len(stretch) == 1)
    _, p50, p95 = known[-1]
    told = f"{what} p50 {span(p50)}, p95 {span(p95)} lately; at most {span(most)}"
    return Line(areas, lines, dots, p50, p95, told)


def _heights(least: float, most: float) -> Callable[[float], float]:
    """Shares of the height, by orders of magnitude: else one slow span would press all others to the ground."""
    low, high = math.log10(max(least, 1e-4) / 2), math.log10(max(most, 1e-4))
    return lambda value: (math.log10(max(value, 1e-4)) - low) / (high - low)


def columns(rows: Iterable[Row], slots: Sequence[datetime]) -> tuple[list[Column], int]:
    """What ended in each span, all types together, and how many in the fullest."""
    sums: dict[datetime, dict[str, int]] = {}
    for row in rows:
        slot = sums.setdefault(row["at"], dict.fromkeys((kind for kind, _ in KINDS), 0))
        for kind, _ in KINDS:
            slot[kind] += int(row[kind])
    most = max((sum(slot.values()) for slot in sums.values()), default=0)
    width = 100 / len(slots)
    return [
        _column(n * width, width, slot, sums[slot], most) for n, slot in enumerate(slots) if slot in sums and most
    ], most


def totals(rows: Iterable[Row]) -> dict[str, int]:
    """Ended attempts by kind."""
    listed = list(rows)
    return {kind: sum(int(row[kind]) for row in listed) for kind, _ in KINDS}


def _column(x: float, width: float, slot: datetime, counts: Mapping[str, int], most: int) -> Column:
    parts, top = [], 100.0
    for kind, tone in KINDS:
        if counts[kind]:
            height = max(counts[kind] / most * 100, 1.5)
            top -= height
            parts.append((tone, round(max(top, 0.0), 2), round(height, 2)))
    said = ", ".join(f"{counts[kind]} {kind}" for kind, _ in KINDS if counts[kind])
    return Column(round(x, 3), round(width * 0.8, 3), tuple(parts), f"{slot:%H:%M} UTC: {said}")


def _stretches(known: Sequence[tuple[int, float, float]]) -> list[list[tuple[int, float, float]]]:
    """Cut where a span has no data, so that a line does not claim to know."""
    made: list[list[tuple[int, float, float]]] = []
    for each in known:
        if made and each[0] == made[-1][-1][0] + 1:
            made[-1].append(each)
        else:
            made.append([each])
    return made


def _area(points: Sequence[tuple[float, float]]) -> str:
    return f"{points[0][0]},{HEIGHT} {_points(points)} {points[-1][0]},{HEIGHT}"


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
