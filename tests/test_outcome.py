"""judge(): every row of the table of outcomes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.heart import job
from worker.errors import (
    AttemptTimeout,
    CancelRequested,
    DeadlineExceeded,
    Interrupted,
    InvalidJob,
    JobError,
    LeaseExpired,
    LostClaim,
    Permanent,
    StepsFailed,
    StepTimeout,
)
from worker.job import Status
from worker.outcome import (
    RESCUES,
    SNOOZES,
    Cancelled,
    Completed,
    Failed,
    Outcome,
    Released,
    Retried,
    Skipped,
    Snoozed,
    clean,
    judge,
    message,
)
from worker.retry import Retry

RETRY = Retry(max_attempts=5, first=8.0, factor=2.0, max=100.0)
HALF = 0.5
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


def judged(came: object, **fields: object) -> Outcome:
    return judge(job(**fields), RETRY, came, lambda: HALF)


@pytest.mark.parametrize(
    ("came", "fields", "outcome"),
    [
        # any plain return
        (None, {}, Completed(None)),
        ({"a": 1}, {}, Completed({"a": 1})),
        (0, {"attempt": 5}, Completed(0)),
        ([ValueError("returned, not raised, in a list")], {}, None),
        # said by the author
        (Completed(7), {}, Completed(7)),
        (Skipped(), {}, Skipped("no_op")),
        (Skipped("gone"), {"attempt": 5}, Skipped("gone")),
        (Snoozed(30), {"attempt": 5}, Snoozed(30)),
        (Snoozed(until=UNTIL, keep_steps=True), {}, Snoozed(until=UNTIL, keep_steps=True)),
        (Snoozed(30), {"snoozes": SNOOZES - 1}, Snoozed(30)),
        (Snoozed(30), {"snoozes": SNOOZES}, Failed("snoozed 1000 times", "exhausted")),
        (Cancelled("enough"), {}, Cancelled("enough")),
        (CancelRequested("by ada"), {"attempt": 5}, Cancelled("by ada")),
        (CancelRequested(), {}, Cancelled("cancelled")),
        # an error, attempts left
        (ValueError("x"), {}, Retried("ValueError: x", 4.0)),
        (ValueError("x"), {"attempt": 3}, Retried("ValueError: x", 16.0)),
        (ValueError("x"), {"attempt": 9, "max_attempts": 10}, Retried("ValueError: x", 50.0)),
        (StepsFailed("a; b"), {}, Retried("StepsFailed: a; b", 4.0)),
        (AttemptTimeout("late"), {}, Retried("AttemptTimeout: late", 4.0)),
        (LostClaim("gone"), {}, Retried("LostClaim: gone", 4.0)),
        (SystemExit(3), {}, Retried("SystemExit: 3", 4.0)),
        (KeyboardInterrupt(), {}, Retried("KeyboardInterrupt", 4.0)),
        # none left: the row's own number rules, not the type's
        (ValueError("x"), {"attempt": 5}, Failed("ValueError: x", "exhausted")),
        (ValueError("x"), {"attempt": 1, "max_attempts": 1}, Failed("ValueError: x", "exhausted")),
        (ValueError("x"), {"attempt": 6}, Failed("ValueError: x", "exhausted")),
        (AttemptTimeout("late"), {"attempt": 5}, Failed("AttemptTimeout: late", "timeout")),
        (StepTimeout("late"), {"attempt": 5}, Failed("StepTimeout: late", "timeout")),
        # final at once
        (Permanent("no"), {}, Failed("Permanent: no", "permanent")),
        (InvalidJob("bad"), {}, Failed("InvalidJob: bad", "invalid")),
        (DeadlineExceeded("past"), {}, Failed("DeadlineExceeded: past", "deadline")),
        # the process stops
        (Interrupted("stops"), {"attempt": 5}, Released()),
        # the process that ran it died
        (LeaseExpired("died"), {"rescues": 1}, Retried("LeaseExpired: died", 0.0)),
        (LeaseExpired("died"), {"rescues": 2, "attempt": 2}, Retried("LeaseExpired: died", 8.0)),
        (LeaseExpired("died"), {"rescues": RESCUES, "attempt": 3}, Retried("LeaseExpired: died", 16.0)),
        (LeaseExpired("died"), {"rescues": RESCUES + 1, "attempt": 4}, Failed("LeaseExpired: died", "poison")),
        (LeaseExpired("died"), {"rescues": 1, "attempt": 1, "max_attempts": 1}, Failed("LeaseExpired: died", "poison")),
        (LeaseExpired("died"), {"rescues": 9, "attempt": 5, "counted": False},
         Retried("LeaseExpired: died", 0.0, counted=False)),
    ],
)  # fmt: skip
def test_the_table(came, fields, outcome):
    assert judged(came, **fields) == (outcome or Completed(came))


@pytest.mark.parametrize(
    ("outcome", "status", "counted"),
    [
        (Completed(), Status.COMPLETED, True),
        (Skipped(), Status.SKIPPED, True),
        (Snoozed(), Status.PENDING, False),
        (Cancelled(), Status.CANCELLED, True),
        (Retried("x", 1.0), Status.PENDING, True),
        (Failed("x", "exhausted"), Status.FAILED, True),
        (Released(), Status.PENDING, False),
    ],
)
def test_status_after_and_whether_it_counts(outcome, status, counted):
    assert (outcome.status, outcome.counted) == (status, counted)


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 1, exclude_max=True), st.text())
def test_an_error_is_retried_within_bounds_or_final(attempt, most, draw, text):
    outcome = judge(job(attempt=attempt, max_attempts=most), RETRY, RuntimeError(text), lambda: draw)
    if attempt >= most:
        assert isinstance(outcome, Failed)
    else:
        assert isinstance(outcome, Retried)
        assert 0 <= outcome.delay <= RETRY.ceiling(attempt)


@pytest.mark.parametrize(
    "said",
    [
        lambda: Snoozed("5"),  # type: ignore[arg-type]
        lambda: Snoozed(float("nan")),
        lambda: Snoozed(float("inf")),
        lambda: Snoozed(timedelta(seconds=5)),  # type: ignore[arg-type]
        lambda: Snoozed(until=datetime(2030, 1, 1)),
        lambda: Snoozed(until="tomorrow"),  # type: ignore[arg-type]
        lambda: Skipped(None),  # type: ignore[arg-type]
        lambda: Cancelled(3),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_written_is_refused_where_it_is_said(said):
    with pytest.raises(TypeError, match="must be"):
        said()


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_any_text_can_be_written(text):
    cleaned = clean(text)
    assert "\x00" not in cleaned
    cleaned.encode("utf-8")


def test_a_message_is_bounded_and_never_raises():
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert message(Broken()) == "Broken: (its text cannot be had: ValueError)"
    assert len(message(RuntimeError("x" * 10_000))) == 2000
    assert message(JobError()) == "JobError"
    assert message(ValueError("a\x00b\ud800")) == "ValueError: a\\0b\\ud800"
