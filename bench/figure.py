"""One figure of a run, and how figures are told."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Figure:
    """A measured value beside the raw one of the same run.

    Attributes:
        value, raw: medians over the runs; raw is None where there is nothing to compare with.
        ratio: the median of the runs' own ratios: what this machine does to both at the same time falls out.
        goal: as text, such as `≥ 0.6 of raw`.
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
    def of(
        cls, name: str, unit: str, goal: str, runs: Sequence[dict[str, float]], *, inverse: bool = False
    ) -> "Figure":
        """The figure of runs that each have a `value`, perhaps a `raw`, and anything else beside.

        Args:
            inverse: smaller is better, so the ratio is value / raw all the same, and the goal says so.
        """
        values, raws = [run["value"] for run in runs], [run["raw"] for run in runs if "raw" in run]
        ratios = [run["value"] / run["raw"] for run in runs if run.get("raw")]
        names = {name for run in runs for name in run} - {"value", "raw"}
        return cls(
            name, statistics.median(values), unit, statistics.median(raws) if raws else None,
            statistics.median(ratios) if ratios else None, goal, [dict(run) for run in runs],
            {each: statistics.median(run[each] for run in runs if each in run) for each in sorted(names)},
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)

    def sentence(self) -> str:
        """For people."""
        told = [f"{self.name}: {shown(self.value)} {self.unit}"]
        if self.raw is not None and self.ratio is not None:
            ratios = sorted(run["value"] / run["raw"] for run in self.runs if run.get("raw"))
            told.append(f"raw {shown(self.raw)}, ratio {self.ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        told.append(f"goal {self.goal}")
        told += [f"{name} {shown(value)}" for name, value in self.beside.items()]
        return ", ".join(told)


def shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
