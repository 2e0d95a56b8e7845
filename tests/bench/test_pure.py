"""What measurements reckon without measuring."""

from pathlib import Path

import pytest

from bench.flow import medians
from bench.graph import drawn, ideals, lower_bound, pretence
from bench.ground import Ground
from bench.latency import percentile
from bench.memory import slope
from bench.schedule import makespan
from bench.series import binned

DIAMOND = {"a": {"sql": "a"}, "b": {"sql": "b", "needs": ["a"]}, "c": {"sql": "c", "needs": ["a"]},
           "d": {"sql": "d", "needs": ["b", "c"]}}  # fmt: skip
SECONDS = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 1.0}


@pytest.mark.parametrize(("cores", "bound"), [(1, 8.0), (2, 6.0), (4, 6.0)])
def test_the_lower_bound_is_the_longest_path_or_the_work_by_cores(cores: int, bound: float) -> None:
    assert lower_bound(drawn(DIAMOND), SECONDS, cores) == bound


def test_what_is_pretended_makes_the_wanted_order() -> None:
    """Also against the length of paths: c comes before b where it is listed so, whatever follows either."""
    for names in (["a", "b", "c", "d"], ["a", "c", "b", "d"]):
        remaining = drawn(DIAMOND).remaining(dict(zip(*pretence(names), strict=True)))
        assert sorted(names, key=lambda name: -remaining[name]) == names


@pytest.mark.parametrize(("lanes", "first", "span"), [(1, "b", 8.0), (2, "b", 6.0), (2, "c", 6.0)])
def test_makespans(lanes: int, first: str, span: float) -> None:
    weight = {"a": 9.0, "b": 1.0, "c": 1.0, "d": 0.0} | {first: 2.0}
    assert makespan(drawn(DIAMOND), SECONDS, weight, lanes) == span


def test_an_order_costs_what_it_leaves_idle() -> None:
    """Three in a line beside two: who starts the two first waits for the line at the end."""
    line = {name: {"sql": name, "needs": needs} for name, needs in
            {"x": [], "y": [], "a": [], "b": ["a"], "c": ["b"]}.items()}  # fmt: skip
    told = ideals(drawn(line), list(line), dict.fromkeys(line, 1.0), 2)
    assert (told["learned"], told["listed"]) == (3.0, 4.0)
    assert 3.0 <= told["random"] <= 4.0


@pytest.mark.parametrize(
    ("values", "grown"), [([58.0, 58.0, 58.0], 0.0), ([50.0, 52.0, 54.0], 2.0), ([60.0], 0.0), ([], 0.0)]
)
def test_slope(values: list[float], grown: float) -> None:
    assert slope(values) == pytest.approx(grown)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_percentiles(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == value


def test_bins_hold_every_value_and_empty_ones_between_stay() -> None:
    bins = binned([0.1, 0.3, 0.3, 1.0])
    assert [share for _, share in bins] == [75.0, 0.0, 0.0, 0.0, 25.0, 0.0]
    assert [edge for edge, _ in bins] == pytest.approx([0.25, 0.354, 0.5, 0.707, 1.0, 1.414], abs=0.001)
    assert binned([]) == []
    assert sum(share for _, share in binned([1e9, 0.0])) == 100.0


def test_medians_by_name() -> None:
    told = [{"a": 1.0, "b": 9.0}, {"a": 2.0, "b": 8.0}, {"a": 9.0, "b": 1.0}]
    assert medians(told) == {"a": 2.0, "b": 8.0}


@pytest.mark.parametrize(("scale", "count"), [(1.0, 1_000), (0.5, 500), (0.0001, 20)])
def test_counts_at_a_scale(scale: float, count: int) -> None:
    assert Ground(None, Path(), scale).sized(1_000, least=20) == count  # type: ignore[arg-type]
