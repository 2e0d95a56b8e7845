"""Medians, spreads and how a figure is told."""

import pytest

from bench.figure import Figure, shown

RUNS = [{"value": 6.0, "raw": 10.0, "p99": 1.0}, {"value": 9.0, "raw": 10.0, "p99": 3.0}, {"value": 4.0, "raw": 4.0}]


def test_medians_of_the_runs_and_of_their_own_ratios() -> None:
    figure = Figure.of("drain", "jobs/s", "≥ 0.6 of raw, p99 ≤ 2", RUNS)
    assert (figure.value, figure.raw, figure.ratio) == (6.0, 10.0, 0.9)
    assert (figure.spread, figure.beside, figure.holds) == ((0.6, 1.0), {"p99": 2.0}, True)
    assert figure.sentence() == (
        "drain: 6 jobs/s, raw 10, ratio 0.9 (0.6 to 1), goal ≥ 0.6 of raw, p99 ≤ 2: holds, p99 2"
    )


def test_without_a_raw_figure_the_values_spread() -> None:
    figure = Figure.of("step", "ms", "< 1 ms", [{"value": 1.5}, {"value": 0.5}, {"value": 2.5}])
    assert (figure.raw, figure.ratio, figure.spread, figure.holds) == (None, None, (0.5, 2.5), False)
    assert figure.sentence() == "step: 1.5 ms, 0.5 to 2.5, goal < 1 ms: MISSED"


def test_json_has_what_was_promised() -> None:
    told = Figure.of("drain", "jobs/s", "≥ 0.6 of raw", RUNS).as_dict()
    assert {"name", "value", "unit", "raw", "ratio", "goal", "runs"} <= set(told)
    assert told["runs"] == RUNS


@pytest.mark.parametrize(
    ("value", "text"), [(123_456.7, "123,457"), (999.6, "1e+03"), (12.345, "12.3"), (0.0, "0"), (-0.01234, "-0.0123")]
)
def test_three_digits(value: float, text: str) -> None:
    assert shown(value) == text
