"""The geometry of a job's steps over time."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from worker.web.pages import gantt


def step(
    name: str, began: float | None, seconds: float | None, status: str = "completed", attempt: int = 1
) -> dict[str, Any]:
    at = None if began is None else f"2026-11-22T12:00:{began:06.3f}+00:00"
    return {
        "name": name,
        "began": began,
        "seconds": seconds,
        "status": status,
        "attempt": attempt,
        "started_at": at,
        "error": None,
    }


def job(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {
        "steps": list(steps),
        "earlier": [],
        "usual": {},
        "errors": None,
        "status": "completed",
        "finished_at": None,
    }
    return given | more


def test_bars_keep_their_proportions() -> None:
    made = gantt.chart(job(step("a", 0.0, 1.0), step("b", 1.0, 3.0)), {"b": ["a"]})
    assert [(bar.x, bar.width) for bar in made.bars] == [(0.0, 25.0), (25.0, 75.0)]
    assert made.critical == ["a", "b"]
    assert made.slowest is made.bars[1]
    assert [(link.x, link.to_x, link.critical) for link in made.links] == [(25.0, 25.0, True)]
    assert [told for _, _, told in made.ticks] == ["0", "1 s", "2 s", "3 s", "4 s"]


def test_a_long_pause_is_cut_and_tells_its_length() -> None:
    made = gantt.chart(job(step("a", 0.0, 1.0), step("b", 59.0, 1.0)), {})
    (cut,) = made.cuts
    assert cut[2] == "58 s"
    assert cut[1] < 10
    assert [round(bar.width) for bar in made.bars] == [47, 47]


def test_what_an_earlier_attempt_did_is_kept_and_on_no_critical_path() -> None:
    errors = [{"attempt": 1, "at": "2026-11-22T12:00:02+00:00", "message": "no"}]
    steps = step("a", 0.0, 1.0), step("b", 2.0, 1.0, attempt=2)
    made = gantt.chart(job(*steps, earlier=["a"], errors=errors), {"b": ["a"]})
    assert [bar.tone for bar in made.bars] == ["kept", "good"]
    assert made.bars[0].notes == ("done by attempt 1 and kept: not run again",)
    assert made.bars[1].notes == ("attempt 2",)
    assert made.critical == []
    assert [told for _, told in made.falls] == ["attempt 1 failed"]


def test_slower_than_usual_is_told() -> None:
    made = gantt.chart(job(step("a", 0.0, 3.0), step("b", 0.0, 0.02), usual={"a": 0.5, "b": 0.001}), {})
    assert [bar.notes for bar in made.bars] == [("6.0 × its usual 500 ms",), ()]


def test_steps_that_never_ran_have_a_name_and_no_bar() -> None:
    made = gantt.chart(job(step("a", None, None, "waiting")), {"a": ["b"]})
    assert (made.bars[0].x, made.ticks, made.slowest) == (None, [], None)
    left = gantt.chart(
        job(step("a", 0.0, 9.0, "running"), status="failed", finished_at="2026-11-22T12:00:05+00:00"), {}
    )
    assert (left.bars[0].status, left.bars[0].length) == ("interrupted", "5 s")


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1000)), min_size=1, max_size=12))
def test_every_bar_is_within_the_chart(times: list[tuple[float, float]]) -> None:
    made = gantt.chart(job(*(step(f"s{n}", began, seconds) for n, (began, seconds) in enumerate(times))), {})
    assert all(0 <= (bar.x or 0) <= 100 and bar.end <= 100.5 for bar in made.bars)
    assert len(made.ticks) <= 8
