"""Plots are well-formed, and their points stand where they belong."""

import re
from xml.etree import ElementTree

import pytest

from bench.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot, short, ticks

LINES = {"a & b": [[1, 10.0], [10, 40.0], [100, 20.0]], "c": [[10, 5.0]]}


def dots(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)]


def test_a_logarithmic_axis_spreads_the_decades_evenly() -> None:
    text = Plot("t < u", "x", "y", LINES, log_x=True).svg()
    root = ElementTree.fromstring(text)
    assert root.find("{*}title") is not None
    assert "t &lt; u" in text
    assert "a &amp; b" in text
    base = HEIGHT - BOTTOM
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    assert dots(text) == [
        (LEFT, base - (base - TOP) / 4),
        (middle, TOP),
        (WIDTH - RIGHT, base - (base - TOP) / 2),
        (middle, base - (base - TOP) / 8),
    ]


@pytest.mark.parametrize("bars", [False, True])
@pytest.mark.parametrize("lines", [LINES, {"one": [[0, 3.0]]}, {"none": []}, {"zero": [[0, 0.0], [10, 0.0]]}])
@pytest.mark.parametrize("log_x", [False, True])
def test_whatever_is_drawn_stays_inside(lines: dict[str, list[list[float]]], log_x: bool, bars: bool) -> None:
    text = Plot("t", "x", "y", lines, log_x=log_x, bars=bars).svg()
    ElementTree.fromstring(text)
    assert "nan" not in text
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in dots(text))


@pytest.mark.parametrize(
    ("top", "marks"),
    [
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (40.0, [0, 10, 20, 30, 40]),
        (131_000.0, [0, 50_000, 100_000, 150_000]),
        (0.07, [0, 0.02, 0.04, 0.06, 0.08]),
    ],
)
def test_ticks_are_round_and_reach_the_top(top: float, marks: list[float]) -> None:
    assert ticks(top) == pytest.approx(marks)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.354, "0.354"), (12, "12"), (1000, "1k"), (2500, "2.5k"), (1e6, "1M")]
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text
