"""The course of a job, for whoever draws it."""

from typing import Any

import pytest

from worker import course


def step(
    name: str, began: float | None, seconds: float | None, status: str = "completed", **more: Any
) -> dict[str, Any]:
    return {"name": name, "began": began, "seconds": seconds, "status": status, "started_at": None, **more}


JOB = {"status": "failed", "finished_at": "2026-11-22T12:00:10+00:00"}


def test_a_step_nobody_runs_any_more_is_drawn_to_the_end_of_its_job() -> None:
    left = step("a", 1.0, 99.0, "running", started_at="2026-11-22T12:00:04+00:00")
    assert course.stranded(left, JOB)
    assert {"status": "failed", "began": 1.0, "seconds": 6.0}.items() <= course.drawn(left, JOB).items()


def test_where_its_job_goes_on_it_has_no_time() -> None:
    left = step("a", 1.0, 99.0, "running", started_at="2026-11-22T12:00:04+00:00")
    assert course.drawn(left, {"status": "pending", "finished_at": None})["began"] is None
    assert course.drawn(left, {"status": "running", "finished_at": None}) == left


@pytest.mark.parametrize(
    ("steps", "needs", "path"),
    [
        ([step("a", 0, 3), step("b", 0, 1), step("c", 3, 1)], {"c": ["a", "b"]}, ["a", "c"]),
        ([step("a", 0, 1), step("b", 0, 2), step("c", 2, 1)], {"c": ["a", "b"]}, ["b", "c"]),
        ([step("a", 0, 1), step("b", 1, 5), step("c", 1, 1)], {"c": ["a"]}, ["b"]),
        ([step("a", 0, 1), step("b", 0, 2)], {}, []),
        ([step("a", None, None, "waiting")], {"a": ["b"]}, []),
        ([step("a", 0, 1), step("b", 1, 1)], {"a": ["b"], "b": ["a"]}, ["a", "b"]),  # a circle, as no file has it
    ],
)
def test_the_critical_path(steps: list[dict[str, Any]], needs: dict[str, list[str]], path: list[str]) -> None:
    assert course.critical(steps, needs) == path
