"""Goals are read as they are written."""

import pytest

from bench.goal import Bound, bounds, holds
from bench.names import NAMES


@pytest.mark.parametrize(
    ("goal", "read"),
    [
        ("≥ 0.6 of raw, stretch 0.8", [Bound("ratio", "≥", 0.6)]),
        ("≤ 1.10 of its lower bound", [Bound("ratio", "≤", 1.1)]),
        ("≤ 2 ms, p99 ≤ 5 ms", [Bound("value", "≤", 2), Bound("p99", "≤", 5)]),
        ("≤ 1,000 beside beats, cpu_s ≤ 2 s", [Bound("value", "≤", 1000), Bound("cpu_s", "≤", 2)]),
        ("< 1 ms", [Bound("value", "<", 1)]),
        ("ahead of every peer", []),
        ("> often", []),
    ],
)
def test_bounds(goal: str, read: list[Bound]) -> None:
    assert list(bounds(goal)) == read


@pytest.mark.parametrize(
    ("goal", "figures", "verdict"),
    [
        ("≥ 0.6 of raw", {"ratio": 0.6}, True),
        ("≥ 0.6 of raw", {"ratio": 0.599}, False),
        ("≥ 0.6 of raw", {"ratio": None, "value": 9.0}, None),
        ("< 1 ms", {"value": 1.0}, False),
        ("≤ 2 ms, p99 ≤ 5 ms", {"value": 1.0, "p99": 5.0}, True),
        ("≤ 2 ms, p99 ≤ 5 ms", {"value": 1.0, "p99": 5.1}, False),
        ("≤ 2 ms, p99 ≤ 5 ms", {"value": 1.0}, None),
        ("as little as can be", {"value": 1.0}, None),
    ],
)
def test_verdicts(goal: str, figures: dict[str, float | None], verdict: bool | None) -> None:
    assert holds(goal, figures) is verdict


def test_every_measurement_says_what_it_is() -> None:
    assert {name for name, each in NAMES.items() if not (each.__doc__ or "").strip()} == set()
