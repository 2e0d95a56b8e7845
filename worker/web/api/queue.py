"""How the queue is, and a stream that tells when it changed."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from worker.web.api.models import LARGEST, Answer
from worker.web.api.types import Type
from worker.web.problems import Problem
from worker.web.reply import Strict, reply
from worker.web.stream import Changes, Stream
from worker.web.visit import Reader, Seen

router = APIRouter(tags=["queue"], route_class=Strict)


class Daemon(Answer):
    """A daemon."""

    id: int
    host: str
    pid: int
    version: str
    state: Literal["alive", "silent", "dead"]
    running: int
    slots: int
    beat: float = Field(description="Seconds since its last beat.")


class Span(Answer):
    """Attempts that ended within a span of time."""

    at: str = Field(description="Where it begins.")
    completed: int
    failed: int
    again: int = Field(description="Pending after it: retried, snoozed, released.")
    other: int = Field(description="Skipped and cancelled.")
    wait_p50: float | None
    wait_p95: float | None
    run_p50: float | None
    run_p95: float | None


class TypeStats(Answer):
    """Of a type, the oldest span first."""

    job_type: str
    spans: list[Span]


class Stats(Answer):
    """How the queue is, and was."""

    types: list[Type]
    daemons: list[Daemon]
    trends: list[TypeStats]
    oldest_transaction: float = Field(description="Of the database, in seconds.")


Hours = Annotated[float, Query(ge=0.1, le=192, description="So far back.")]
Minutes = Annotated[float, Query(ge=5, le=10_080, description="Of a span.")]


@router.get("/stats", responses={200: {"model": Stats, "description": "The sums."}}, summary="How the queue is")
async def stats(who: Reader, seen: Seen, hours: Hours = 24, minutes: Minutes = 60) -> Response:
    """Types and daemons as they are now, and attempts of the last hours by type and span; up to a second old."""
    now = await seen.overview()
    spans: dict[str, list[Any]] = {}
    for row in await seen.trends(hours * 3600, minutes * 60):
        span = {name: value for name, value in row.items() if name != "job_type"}
        spans.setdefault(row["job_type"], []).append(span)
    told = {name: now[name] for name in ("types", "daemons", "oldest_transaction")}
    return reply({**told, "trends": [{"job_type": name, "spans": each} for name, each in spans.items()]})


@router.get(
    "/events",
    responses={200: {"description": "The stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    response_class=Response,
    summary="A stream of changes",
)
async def events(
    request: Request,
    who: Reader,
    job: Annotated[int | None, Query(ge=1, le=LARGEST, description="Tell of this job's changes, too.")] = None,
) -> Response:
    """Server-sent events: `changed` when anything in the queue changed, `job` when that job or its steps did, `away`
    while the database does not answer. They say that something changed, not what: ask for it.
    """
    changes: Changes = request.app.state.changes
    if changes.full:
        raise Problem(503, "too_many_streams", "as many streams are open as are allowed", {"Retry-After": "10"})
    return Stream(changes.follow(job))
