from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config.duration import parse, show


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1.5h", 5400),
        ("0s", 0),
        ("3650d", 315_360_000),
    ],
)
def test_parse(text: str, seconds: float) -> None:
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "-1s",
        "+1s",
        "5 s",
        "5S",
        "1h30m",
        "1e3s",
        ".5s",
        "5.s",
        "٣s",
        "5s\n",
        "9" * 5000 + "s",
        5,
        True,
        None,
    ],
)
def test_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse(text)


@pytest.mark.parametrize("text", ["3651d", "999999999d"])
def test_too_long(text: str) -> None:
    with pytest.raises(ValueError, match="must not be longer"):
        parse(text)


@pytest.mark.parametrize("text", ["500ms", "1s", "90s", "5m", "24h", "7d", "0s", "1.5ms"])
def test_show_is_short(text: str) -> None:
    assert show(parse(text)) == {"24h": "1d"}.get(text, text)


@given(st.integers(0, 999_999), st.sampled_from(["ms", "s", "m", "h"]))
def test_what_is_shown_is_read_back(amount: int, unit: str) -> None:
    if unit == "h":
        amount %= 80_000
    seconds = parse(f"{amount}{unit}")
    assert parse(show(seconds)) == pytest.approx(seconds, abs=1e-9)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse(text) >= 0
