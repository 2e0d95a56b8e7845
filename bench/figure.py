"""One figure of a run, and how figures are told."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import goal as goals


@dataclass
class Figure:
    """A measured value beside the raw one of the same run.

    Attributes:
        value, raw: medians over the runs; raw is None where there is nothing to compare with.
        ratio: the median of the runs' own ratios: what this machine does to both at the same time falls out.
        goal: as text, such as `≥ 0.6 of raw`; bench/goal.py reads it.
        runs: what each run gave.
        beside: other figures of the same runs, by name.
    """

    name: str
    value: float
    unit: str
    raw: float | None
    ratio: float | None
    goal: str
    runs: list[dict[str, float]] = field(default_factory=list)
    beside: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, unit: str, goal: str, runs: Sequence[Mapping[str, float]]) -> "Figure":
        """The figure of runs that each have a `value`, perhaps a `raw`, and anything else beside."""
        values, raws = [run["value"] for run in runs], [run["raw"] for run in runs if "raw" in run]
        ratios = _ratios(runs)
        names = {name for run in runs for name in run} - {"value", "raw"}
        return cls(
            name, statistics.median(values), unit, statistics.median(raws) if raws else None,
            statistics.median(ratios) if ratios else None, goal, [dict(run) for run in runs],
            {each: statistics.median(run[each] for run in runs if each in run) for each in sorted(names)},
        )  # fmt: skip

    @property
    def holds(self) -> bool | None:
        """Whether the goal does, by the medians; None where nothing was measured that it speaks of."""
        return goals.holds(self.goal, {**self.beside, "value": self.value, "ratio": self.ratio})

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the most of the runs: of their ratios where they have some, else of their values."""
        told = _ratios(self.runs) or [run["value"] for run in self.runs] or [self.value]
        return min(told), max(told)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self) | {"spread": list(self.spread), "holds": self.holds}

    def sentence(self) -> str:
        """For people."""
        told = [f"{self.name}: {shown(self.value)} {self.unit}"]
        low, high = map(shown, self.spread)
        if self.raw is not None and self.ratio is not None:
            told.append(f"raw {shown(self.raw)}, ratio {shown(self.ratio)} ({low} to {high})")
        elif len(self.runs) > 1:
            told.append(f"{low} to {high}")
        told.append(f"goal {self.goal}: {VERDICTS[self.holds]}")
        told += [f"{name} {shown(value)}" for name, value in self.beside.items()]
        return ", ".join(told)


VERDICTS = {True: "holds", False: "MISSED", None: "not told"}


def shown(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _ratios(runs: Sequence[Mapping[str, float]]) -> list[float]:
    return [run["value"] / run["raw"] for run in runs if run.get("raw")]
