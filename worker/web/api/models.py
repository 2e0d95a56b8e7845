"""The shapes of the API: what is taken is strict, what is answered is described."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from worker import exact

LARGEST = 2**53 - 1  # that every reader of JSON has exactly

Status = Literal["pending", "running", "completed", "skipped", "failed", "cancelled"]
TypeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _written(value: object) -> object:
    """Of numbers nobody knows whether they are seconds, and without an offset nobody knows when."""
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise ValueError("must be an instant with an offset, such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(instant: datetime) -> datetime:
    """Postgres knows fewer offsets than there can be; at the ends of time there is nothing beyond."""
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        return (datetime.min if instant.year == 1 else datetime.max).replace(tzinfo=UTC)


def whole(value: object) -> object:
    """1.0 is a whole number to JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The bounds first: after a validator of ours they would be missing in the description.
Whole = Annotated[int, BeforeValidator(whole)]
JobId = Annotated[int, Field(ge=1, le=LARGEST), BeforeValidator(whole)]
Priority = Annotated[int, Field(ge=0, le=1000), BeforeValidator(whole)]
Attempts = Annotated[int, Field(ge=1, le=10_000), BeforeValidator(whole)]
Instant = Annotated[
    datetime,
    Field(strict=False),
    BeforeValidator(_written),
    AfterValidator(_in_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Key = Annotated[str, Field(min_length=1, max_length=500)]
Short = Annotated[str, Field(min_length=1, max_length=200)]
Seconds = Annotated[float, Field(ge=0, le=3.2e9)]
Table = dict[str, Any]


class Given(BaseModel):
    """What is taken: no other keys, no other types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """What is answered; a release may add to it."""

    model_config = ConfigDict(extra="allow")


class NewJob(Given):
    """A job to be enqueued; what is left out comes from the declared type."""

    job_type: TypeName = Field(examples=["stats_update"])
    payload: Table = Field({}, description="At most 65,536 bytes as text.", examples=[{"tenant_id": "t1"}])
    scheduled_at: Instant | None = Field(None, description="Not before; ISO 8601 with an offset.")
    delay: Seconds | None = Field(None, description="Seconds from now, or from scheduled_at.")
    priority: Priority | None = Field(None, description="Smaller runs first.")
    unique_key: Key | None = None
    on_conflict: Literal["keep", "refuse", "replace"] | None = Field(None, description="When the unique key is held.")
    concurrency_key: Key | None = None
    tenant_id: Short | None = None
    max_attempts: Attempts | None = None
    expires_at: Instant | None = Field(None, description="Skipped if it has not started by then.")
    correlation_id: Short | None = None
    source: Short | None = Field(None, description="For the type's per-source flags.")

    @field_validator("payload")
    @classmethod
    def _can_be_stored(cls, payload: Table) -> Table:
        try:
            text = exact.dumps(payload)
        except (TypeError, ValueError, RecursionError):
            raise ValueError("is nested too deep, or holds text that is no Unicode") from None
        if b"\\u0000" in text:
            raise ValueError("holds the character NUL")
        return payload


class Enqueued(Answer):
    """What became of it."""

    id: int = Field(description="The job, or the one that holds its unique key.", examples=[17])
    created: bool = Field(description="False: that one was kept, or replaced.")


class Filter(Given):
    """Which jobs, and from where on."""

    type: TypeName | None = None
    status: Status | None = None
    tenant: Short | None = None
    text: Short | None = Field(
        None, description="In id, tenant, correlation id, keys, source, phase, reason or last error; never in payloads."
    )
    since: Instant | None = Field(None, description="Ended, or where they have not, were made, since then.")
    before: JobId | None = Field(None, strict=False, description="The `next` of the page before.")
    limit: int = Field(50, ge=1, le=200, strict=False)


class Listed(Answer):
    """A job in a list."""

    id: int
    job_type: str
    status: Status
    label: str = Field(description="The status in more words, such as scheduled or retrying.")
    tenant_id: str | None
    attempt: int
    max_attempts: int
    created_at: str
    scheduled_at: str
    started_at: str | None
    finished_at: str | None
    wait: float | None = Field(description="Seconds from due to start.")
    duration: float | None = Field(description="Seconds from start to end, or until now.")
    finish_reason: str | None
    last_error: str | None


class Page(Answer):
    """The newest jobs that match, newest first."""

    jobs: list[Listed]
    next: int | None = Field(
        description="Ask again with before = this; null at the end. A page looks at 20,000 jobs at most, so one "
        "that is short, or empty, may still have a next."
    )


class Step(Answer):
    """A step of a job."""

    name: str
    status: Literal["waiting", "running", "completed", "failed"]
    attempt: int
    started_at: str | None
    finished_at: str | None
    began: float | None = Field(description="Seconds after the first step of the job.")
    seconds: float | None
    error: str | None
    tags: list[str]


class Event(Answer):
    """What a person, a program or a rescue did to a job."""

    at: str
    event: str
    actor: str = Field(description="The role, or `web:` and the name of a key.")
    detail: Table | None


class Explained(Answer):
    """Why a job is where it is."""

    code: str = Field(examples=["type_paused"])
    sentence: str


class Child(Answer):
    """A job that this one made."""

    id: int
    job_type: str
    status: Status


class JobDetail(Listed):
    """A job in full."""

    payload: Table | None = Field(description="Null unless asked for; values whose name means a secret are starred.")
    result: Any
    errors: list[Any] | None = Field(description="The last few: attempt, at, message.")
    progress: Table | None
    steps: list[Step]
    events: list[Event]
    children: list[Child] = Field(description="The first fifty.")
    explain: Explained


class Cancel(Given):
    """Why it is cancelled."""

    reason: str | None = Field(None, min_length=1, max_length=250)


class Retry(Given):
    """How it is run again."""

    fresh: bool = Field(False, description="Finished steps, too.")


class Became(Answer):
    """A job after what was done to it."""

    id: int
    status: Status = Field(description="running after a cancel: it was asked to end, and its SQL is being ended.")
