"""The chart of steps."""

from typing import Any

from worker.demo.gantt import chart


def step(name: str, began: float | None, seconds: float | None, **more: Any) -> dict[str, Any]:
    return {"name": name, "status": "completed", "attempt": 1, "began": began, "seconds": seconds, **more}


def test_bars_lie_where_the_steps_ran() -> None:
    lines = list(chart([step("one", 0.0, 0.5), step("three", 0.5, 0.5, attempt=2)], {"three": ("one",)}, 20))
    assert lines == [
        "  ✓ one   |██████████          |   500 ms",
        "  ✓ three |          ██████████|   500 ms  after one  attempt 2",
    ]


def test_steps_that_have_not_begun_have_no_bar() -> None:
    assert list(chart([step("one", None, None, status="waiting")], {}, 12)) == ["  · one |            |         "]


def test_the_shortest_step_is_seen_and_stays_inside() -> None:
    lines = list(chart([step("long", 0.0, 1.0), step("short", 1.0, 0.0)], {}, 12))
    assert lines[1].count("█") == 1
    assert {line.rindex("|") - line.index("|") for line in lines} == {13}


def test_nothing_is_nothing() -> None:
    assert list(chart([], {})) == []
