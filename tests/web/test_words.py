"""Values as a person reads them."""

from datetime import UTC, datetime

import pytest

from worker.web.pages import words

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, ""), (0, "0 ms"), (0.0002, "< 1 ms"), (0.34, "340 ms"), (0.9996, "1 s"), (1.9, "1.9 s"),
        (12.34, "12.3 s"),        (99.96, "1 min 40 s"), (180, "3 min"), (200, "3 min 20 s"), (20_000, "5 h 33 min"),
        (86_400 * 9 + 7200, "9 d 2 h"),        (-5, "-5 s"),
    ],
)  # fmt: skip
def test_spans(seconds: float | None, told: str) -> None:
    assert words.span(seconds) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(None, ""), (3.21, "3.21 s"), (59, "59 s"), (150, "2 min"), (90_000, "25 h")]
)
def test_brief_spans(seconds: float | None, told: str) -> None:
    assert words.brief(seconds) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, ""), ("2026-11-22T12:00:00.5+00:00", "now"), ("2026-11-22T11:50:00+00:00", "10 min ago"),
        ("2026-11-22T20:00:00+02:00", "in 6 h"),
    ],
)  # fmt: skip
def test_how_long_ago(text: str | None, told: str) -> None:
    assert words.ago(text, NOW) == told


@pytest.mark.parametrize(
    ("value", "told"), [(None, ""), (0, "0"), (1234, "1\u202f234"), (5_000, "5\u202f000+"), (5_001, "5\u202f001")]
)
def test_a_count_that_stopped_says_so(value: float | None, told: str) -> None:
    assert words.count(value) == told


def test_every_label_has_its_sign() -> None:
    assert {words.mark(label) for label in words.TONES} <= set(words.MARKS.values())
    assert words.tone("never heard of") == "gone"
    assert words.plural(1, "job") == "1 job"
    assert words.plural(2, "job") == "2 jobs"
    assert words.at("2026-11-22T14:00:00+02:00") == "2026-11-22 12:00:00 UTC"
