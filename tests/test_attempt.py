"""A call's time, and what comes of it for each of its jobs."""

import pytest

from tests.heart import job
from worker.attempt import Attempt, shared, together
from worker.config import JobType
from worker.errors import AttemptTimeout, CancelRequested, DeadlineExceeded, Interrupted
from worker.outcome import Completed, Failed, Retried, Skipped


def typed(timeout: str) -> JobType:
    return JobType.model_validate({"python": "tests.sample_jobs:echo", "timeout": timeout})


@pytest.mark.parametrize(
    ("timeout", "remaining", "begins", "late"),
    [
        ("5m", None, True, AttemptTimeout),
        ("5m", 60.0, True, DeadlineExceeded),
        ("5m", 600.0, True, AttemptTimeout),
        ("5m", -1.0, False, DeadlineExceeded),
        ("5m", 0.0, False, DeadlineExceeded),
    ],
)
def test_the_nearer_of_timeout_and_deadline(timeout, remaining, begins, late) -> None:
    attempt = Attempt([job(remaining=remaining)], "python", lambda end: None)
    job_type = typed(timeout)
    assert attempt.begin(job_type.timeout) is begins
    assert type(attempt.late(job_type)) is late


def test_the_deadline_goes_on_while_it_waits_for_its_turn() -> None:
    attempt = Attempt([job(remaining=60.0)], "python", lambda end: None)
    attempt.claimed -= 61.0
    assert not attempt.begin(typed("5m").timeout)


def test_what_came_of_a_call_is_for_all_of_its_jobs_unless_it_says_otherwise() -> None:
    jobs = [job(id=1), job(id=2)]
    each = [Completed(), Skipped()]
    assert shared(jobs, each) is each
    assert shared(jobs, {"n": 1}) == [{"n": 1}] * 2
    assert shared(jobs, [1, 2]) == [[1, 2]] * 2  # a result that is an array
    first, second = shared(jobs, CancelRequested("by ada"))
    assert isinstance(first, CancelRequested)
    assert isinstance(second, Interrupted)


def test_a_call_that_failed_is_made_again_as_one_at_the_time_of_its_most_tried_row() -> None:
    jobs = [job(id=1, attempt=3), job(id=2, attempt=1), job(id=3, attempt=9), job(id=4, attempt=2)]
    partly = Retried("207", 60.0, payload={"tags": []})
    outcomes = [Retried("x", 7.0), Retried("x", 0.1), Failed("x", "exhausted"), partly]
    assert together(jobs, outcomes) == [Retried("x", 7.0), Retried("x", 7.0), Failed("x", "exhausted"), partly]


def test_one_that_goes_again_alone_keeps_its_time() -> None:
    outcomes = [Retried("x", 7.0), Completed()]
    assert together([job(id=1), job(id=2)], outcomes) == outcomes
