"""What an attempt came to: seven outcomes, and the one function that judges. Pure.

An author says Completed (by any plain return), Skipped, Snoozed or Cancelled, or raises. Retried, Failed and Released
are judged, never said.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from worker.errors import (
    AttemptTimeout,
    CancelRequested,
    DeadlineExceeded,
    Interrupted,
    InvalidJob,
    Later,
    LeaseExpired,
    NoPermit,
    Permanent,
    StepTimeout,
)
from worker.job import Job, Status
from worker.retry import Retry

SNOOZES = 1_000  # of one job, then it has failed
RESCUES = 3  # counted ones of one job, then it is poison


class Outcome:
    """Base of the seven; `status` is what the row gets, `counted` whether the attempt counts."""

    status: ClassVar[Status]
    counted: bool = True


@dataclass(frozen=True)
class Completed(Outcome):
    """Done; `result` is kept on the row as JSON, `reason` as its finish_reason."""

    status = Status.COMPLETED
    result: Any = None
    reason: str | None = None


@dataclass(frozen=True)
class Skipped(Outcome):
    """There is nothing to do any more."""

    status = Status.SKIPPED
    reason: str = "no_op"

    def __post_init__(self) -> None:
        _must_be_text("Skipped", self.reason)


@dataclass(frozen=True)
class Snoozed(Outcome):
    """Not yet: again after `delay` seconds or at `until`; steps begin anew unless `keep_steps`."""

    status = Status.PENDING
    counted = False
    delay: float = 0.0
    until: datetime | None = None
    keep_steps: bool = False

    def __post_init__(self) -> None:
        # Said at the author's own line, because the verdict that Postgres would refuse is written elsewhere.
        if not isinstance(self.delay, int | float) or not math.isfinite(self.delay):
            raise TypeError(f"Snoozed: delay must be a finite number of seconds, not {self.delay!r}")
        if self.until is not None and (not isinstance(self.until, datetime) or self.until.utcoffset() is None):
            raise TypeError(f"Snoozed: until must be a datetime with a time zone, not {self.until!r}")


@dataclass(frozen=True)
class Cancelled(Outcome):
    """Ended by a person, a program or the author."""

    status = Status.CANCELLED
    reason: str = "cancelled"

    def __post_init__(self) -> None:
        _must_be_text("Cancelled", self.reason)


@dataclass(frozen=True)
class Retried(Outcome):
    """An error, and attempts are left: again after `delay` seconds, with another `payload` where one is given."""

    status = Status.PENDING
    error: str
    delay: float
    counted: bool = True
    payload: Any = None


@dataclass(frozen=True)
class Failed(Outcome):
    """The job gave up; `reason` is exhausted, permanent, timeout, deadline, poison or invalid."""

    status = Status.FAILED
    error: str
    reason: str


@dataclass(frozen=True)
class Released(Outcome):
    """Handed back unharmed because the daemon stops: pending at once, attempt not counted, steps kept."""

    status = Status.PENDING
    counted = False


DONE = Completed()  # of a handler that came back with nothing


def judge(job: Job, retry: Retry, came: Any, draw: Callable[[], float] = random.random) -> Outcome:
    """Turn what an attempt returned or raised into an outcome.

    Args:
        came: the handler's return value, an Outcome it said, or the exception it ended with.
        draw: the jitter's random number in [0, 1).
    """
    if came is None:
        return DONE
    match came:
        case Snoozed() if job.snoozes >= SNOOZES:
            return Failed(f"snoozed {SNOOZES} times", "exhausted")
        case Outcome():
            return came
        case BaseException():
            return _judged(job, retry, came, draw)
    return Completed(came)


def _judged(job: Job, retry: Retry, error: BaseException, draw: Callable[[], float]) -> Outcome:
    match error:
        case Interrupted():
            return Released()
        case NoPermit():
            return judge(job, retry, Snoozed(error.delay, keep_steps=True), draw)
        case CancelRequested():
            return Cancelled(_text(error) or "cancelled")
        case Permanent() | DeadlineExceeded():
            return Failed(message(error), _final_reason(error))
        case LeaseExpired():
            return _rescued(job, retry, error, draw)
    return _again(job, retry, error, draw)


def _final_reason(error: BaseException) -> str:
    if isinstance(error, InvalidJob):
        return "invalid"
    return "deadline" if isinstance(error, DeadlineExceeded) else "permanent"


def _again(job: Job, retry: Retry, error: BaseException, draw: Callable[[], float]) -> Outcome:
    # The row's own max_attempts rules: a producer may have asked for another number than the type declares.
    if job.attempt >= job.max_attempts:
        timed_out = isinstance(error, AttemptTimeout | StepTimeout)
        return Failed(message(error), "timeout" if timed_out else "exhausted")
    asked = error.delay if isinstance(error, Later) else 0.0
    return Retried(message(error), max(retry.delay(job.attempt, draw), asked))


def _rescued(job: Job, retry: Retry, error: LeaseExpired, draw: Callable[[], float]) -> Outcome:
    if not job.counted:
        return Retried(message(error), 0.0, counted=False)
    if job.rescues > RESCUES or job.attempt >= job.max_attempts:
        return Failed(message(error), "poison")
    return Retried(message(error), 0.0 if job.rescues <= 1 else retry.delay(job.attempt, draw))


def _must_be_text(outcome: str, reason: object) -> None:
    if not isinstance(reason, str):
        raise TypeError(f"{outcome}: reason must be text, not {reason!r}")


def message(error: BaseException) -> str:
    """One line or a few for the row: type and text of an error, safe to write and bounded."""
    text = _text(error)
    name = type(error).__name__
    return clean(f"{name}: {text}" if text else name)[:2000]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # an author's __str__ may itself be broken, or even quit
        return f"(its text cannot be had: {type(broken).__name__})"


def clean(text: str) -> str:
    """Text as Postgres can keep it: without NUL, without lone surrogates."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
