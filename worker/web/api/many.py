"""Many jobs at once: a filter, a look at what it means, and pages that go on where the last one ended."""

from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ConfigDict, Field, model_validator

from worker.desk import Desk
from worker.web.api.models import Answer, Given, Instant, JobId, Short, Table, TypeName
from worker.web.bulk import worked
from worker.web.problems import answers
from worker.web.reply import Strict, reply
from worker.web.visit import Operator, Queue

router = APIRouter(tags=["many jobs"], route_class=Strict)


def _without_null(schema: dict[str, Any]) -> None:
    """What may be left out is None here, but null is nothing that may be said."""
    schema["minProperties"] = 1
    for key, told in schema["properties"].items():
        kinds = [kind for kind in told.pop("anyOf", []) if kind != {"type": "null"}]
        schema["properties"][key] = {name: each for name, each in {**kinds[0], **told}.items() if name != "default"}


class Chosen(Given):
    """Which jobs: all keys that are given must fit, and at least one must be given."""

    model_config = ConfigDict(json_schema_extra=_without_null)

    type: TypeName | None = None
    error: Short | None = Field(None, description="Part of the last error.")
    tenant: Short | None = None
    since: Instant | None = Field(None, description="Ended since then; for cancel: made.")
    until: Instant | None = None
    ids: list[JobId] | None = Field(None, min_length=1, max_length=10_000)

    @model_validator(mode="before")
    @classmethod
    def _names_something(cls, given: Any) -> Any:
        if isinstance(given, dict) and (not given or None in given.values()):
            raise ValueError("needs one key or more, and none of them null: an empty filter would mean every job")
        return given

    def told(self) -> Table:
        """As the database takes it."""
        return self.model_dump(mode="json", exclude_none=True)


class Failed(Chosen):
    """Which jobs to retry."""

    status: Literal["failed", "cancelled"] | None = Field(None, description="Without ids: failed.")
    finish_reason: Short | None = None


class Unfinished(Chosen):
    """Which jobs to cancel."""

    status: Literal["pending", "running"] | None = None


class BulkRetry(Given):
    """Run again what failed."""

    filter: Failed
    dry_run: bool = Field(True, description="Only tell which jobs these are.")
    rate: float | None = Field(None, ge=1e-6, le=1e6, description="Jobs a second by which they become due.")
    fresh: bool = Field(False, description="Run finished steps, too.")


class BulkCancel(Given):
    """Cancel what is not at its end."""

    filter: Unfinished
    dry_run: bool = Field(True, description="Only tell which jobs these are.")
    reason: str | None = Field(None, min_length=1, max_length=250)


class Preview(Answer):
    """What would be done."""

    dry_run: Literal[True]
    count: int
    more: bool = Field(description="There may be more than `count`: only the first 200,000 jobs were looked at.")
    groups: list[Table] = Field(description="job_type, status, finish_reason and count.")
    sample: list[Table]


class Bulk(Answer):
    """What was done."""

    dry_run: Literal[False]
    bulk: int = Field(description="Its number, that of its event.")
    done: int
    refused: int
    refusals: list[Table] = Field(description="The first hundred: id, code, message.")
    more: bool = Field(description="POST /api/v1/jobs/bulk/{bulk} goes on.")


_SHAPES: dict[int | str, dict[str, Any]] = {
    200: {"model": Bulk | Preview, "description": "What was, or would be, done."}
}


@router.post("/jobs/bulk/retry", responses=_SHAPES, summary="Retry many jobs, or see which")
async def retry(asked: BulkRetry, who: Operator, queue: Queue) -> Response:
    """Failed jobs that fit become pending and due, at once or at a rate; finished steps are kept unless `fresh`."""
    if asked.dry_run:
        return await _preview(queue, "retry", asked.filter)
    bulk = await queue.begin_bulk(who.actor, "retry", asked.filter.told(), rate=asked.rate, fresh=asked.fresh)
    return reply(await worked(queue, who.actor, bulk))


@router.post("/jobs/bulk/cancel", responses=_SHAPES, summary="Cancel many jobs, or see which")
async def cancel(asked: BulkCancel, who: Operator, queue: Queue) -> Response:
    """Pending jobs that fit are cancelled, running ones asked to end."""
    if asked.dry_run:
        return await _preview(queue, "cancel", asked.filter)
    bulk = await queue.begin_bulk(who.actor, "cancel", asked.filter.told(), reason=asked.reason)
    return reply(await worked(queue, who.actor, bulk))


@router.post(
    "/jobs/bulk/{bulk}",
    responses={200: {"model": Bulk, "description": "What was done by this request."}, **answers(404)},
    summary="Go on with many jobs",
)
async def go_on(bulk: JobId, who: Operator, queue: Queue) -> Response:
    """Go on with a retry or cancel whose answer said `more`."""
    return reply(await worked(queue, who.actor, bulk))


async def _preview(queue: Desk, verb: str, chosen: Chosen) -> Response:
    return reply({"dry_run": True, **await queue.preview_bulk(verb, chosen.told())})
