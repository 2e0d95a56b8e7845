"""One claimed row, frozen."""

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from worker import exact
from worker.errors import InvalidJob


class Status(StrEnum):
    """The six statuses of a row (`docs/states.md`)."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (Status.PENDING, Status.RUNNING)


class _Row(NamedTuple):
    """The columns of SQL's `worker.claimed`, in its order."""

    id: int
    job_type: str
    text: str
    priority: int
    attempt: int
    max_attempts: int
    claim: int
    tenant_id: str | None
    correlation_id: str
    traceparent: str | None
    source: str | None
    parent_id: int | None
    concurrency_key: str | None
    rescues: int
    snoozes: int
    waited: float
    remaining: float | None
    counted: bool = True


class once:
    """An attribute that is read when it is first asked for.

    Until Python 3.12 `functools.cached_property` takes a lock for that, which made a payload cost half as much again.
    """

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    def __get__(self, job: Any, owner: type) -> Any:
        if job is None:
            return self
        value = job.__dict__[self._read.__name__] = self._read(job)
        return value


class Job(_Row):
    """A job as the claim returned it; a tuple, for they are made by the hundred.

    Attributes:
        text: the payload as JSON text; decoded by `payload`, inside the job's own error boundary.
        attempt: 1 for the first.
        claim: the number every write of this attempt is fenced by.
        waited: seconds from due to start.
        remaining: seconds to the deadline when the claim was made, or None.
        counted: False when a rescue took the row and the attempt does not count.
    """

    @once
    def payload(self) -> Any:
        """The payload, decoded; whole numbers are exact.

        Raises:
            InvalidJob: it is JSON for Postgres, but not for Python (nested too deep, a number too long).
        """
        try:
            return exact.loads(self.text)
        except ValueError as error:
            raise InvalidJob(f"the payload cannot be decoded: {error}") from None

    @once
    def _exact(self) -> Any:
        # Numbers stay the text they are: SQL knows more digits than Python's floats and orjson's integers.
        try:
            return json.loads(self.text, parse_int=_verbatim, parse_float=_verbatim)
        except (ValueError, RecursionError) as error:
            raise InvalidJob(f"the payload cannot be decoded: {error}") from None

    def columns(self) -> Mapping[str, Any]:
        """The names that templates and `arguments` read from columns, not from the payload."""
        return {
            "id": self.id,
            "job_type": self.job_type,
            "tenant_id": self.tenant_id,
            "correlation_id": self.correlation_id,
        }

    def value(self, name: str) -> Any:
        """A column or payload key by name.

        Raises:
            InvalidJob: neither has it.
        """
        columns = self.columns()
        if name in columns:
            return columns[name]
        if isinstance(self.payload, dict) and name in self.payload:
            return self.payload[name]
        raise InvalidJob(f"the payload has no key {name!r}")

    def argument(self, name: str) -> Any:
        """A column or payload key by name, for SQL: to be written by orjson, its numbers with every digit.

        Raises:
            InvalidJob: neither has it, or it is nested too deep to be handed on.
        """
        if name in self.columns():
            return self.columns()[name]
        if not isinstance(self._exact, dict) or name not in self._exact:
            raise InvalidJob(f"the payload has no key {name!r}")
        try:
            orjson.dumps(self._exact[name])
        except TypeError as error:
            raise InvalidJob(f"payload key {name!r} cannot be handed on: {error}") from None
        return self._exact[name]


def _verbatim(number: str) -> orjson.Fragment:
    return orjson.Fragment(number)
