"""An outcome as the database takes it: values that Postgres can keep, whatever a handler came back with."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from worker import exact
from worker.job import Job
from worker.log import starred
from worker.outcome import Cancelled, Completed, Failed, Outcome, Retried, Skipped, Snoozed, clean

RESULT_BYTES = 65_536


class Verdict(NamedTuple):
    """An outcome as `worker.settle` takes it; the fields are those of the SQL type `worker.verdict`."""

    id: int
    claim: int
    status: str
    reason: str | None
    delay: float
    until: datetime | None
    counted: bool
    snoozed: bool
    keep_steps: bool
    error: str | None
    result: str | None
    payload: str | None = None
    follows: str | None = None

    @property
    def plain(self) -> bool:
        """Completed, and there is nothing more to write."""
        return self.status == "completed" and self.result is None and self.reason is None and self.follows is None

    @classmethod
    def of(cls, job: Job, outcome: Outcome, follows: Sequence[Mapping[str, Any]] = ()) -> "Verdict":
        """What to write for one attempt; `follows` are the jobs its handler enqueued, which count when it went well."""
        if type(outcome) is Completed and not follows:  # nearly all of them, and by the hundred
            reason = None if outcome.reason is None else clean(outcome.reason)
            result = None if outcome.result is None else encode(outcome.result)
            plain = (job.id, job.claim, "completed", reason, 0.0, None, True, False, True, None, result, None, None)
            return tuple.__new__(cls, plain)  # a third of the time that its own constructor takes
        went_well = isinstance(outcome, _WELL)
        return cls(
            id=job.id,
            claim=job.claim,
            status=outcome.status.value,
            reason=_reason(outcome),
            delay=max(outcome.delay, 0.0) if isinstance(outcome, Snoozed | Retried) else 0.0,
            until=outcome.until if isinstance(outcome, Snoozed) else None,
            counted=outcome.counted,
            snoozed=isinstance(outcome, Snoozed),
            keep_steps=outcome.keep_steps if isinstance(outcome, Snoozed) else True,
            error=starred(outcome.error) if isinstance(outcome, Retried | Failed) else None,
            result=encode(outcome.result) if isinstance(outcome, Completed) else None,
            payload=encode(outcome.payload, None) if isinstance(outcome, Retried) else None,
            follows=exact.dumps(list(follows)).decode() if follows and went_well else None,
        )


_WELL = (Completed, Skipped, Snoozed)


def _reason(outcome: Outcome) -> str | None:
    if isinstance(outcome, Completed | Skipped | Cancelled | Failed) and outcome.reason is not None:
        return clean(outcome.reason)
    return None


def encode(value: Any, most: int | None = RESULT_BYTES) -> str | None:
    """A result as JSON that jsonb accepts, or a note that says why it could not be kept; never raises.

    Args:
        most: bytes; None where what is encoded came from the row and must go back whole.
    """
    if value is None:
        return None
    try:
        encoded = exact.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        return orjson.dumps({"not_kept": clean(str(error))}).decode()
    if most is not None and len(encoded) > most:
        return orjson.dumps({"not_kept": f"larger than {most} bytes", "bytes": len(encoded)}).decode()
    text = encoded.decode()
    return exact.dumps(_without_nul(exact.loads(text))).decode() if "\\u0000" in text else text


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _without_nul(item) for key, item in value.items()}
    return value
