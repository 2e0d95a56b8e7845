"""Jobs one by one: enqueue, find, look at, cancel, retry."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from worker.desk import Row
from worker.web.api.models import LARGEST, Became, Cancel, Enqueued, Filter, JobDetail, NewJob, Page, Retry
from worker.web.problems import Problem, answers
from worker.web.reply import Strict, redacted, reply
from worker.web.visit import Enqueuer, Operator, Queue, Reader

router = APIRouter(tags=["jobs"], route_class=Strict)

Id = Annotated[int, Path(ge=1, le=LARGEST, description="The job.", examples=[17])]
Shapes = dict[int | str, dict[str, Any]]

_ENQUEUED: Shapes = {
    201: {"model": Enqueued, "description": "Enqueued.", "headers": {"Location": {"schema": {"type": "string"}}}},
    200: {"model": Enqueued, "description": "Its unique key is held: that job was kept, or replaced."},
    **answers(409),
}
_BECAME: Shapes = {200: {"model": Became, "description": "Done."}, **answers(404, 409)}


@router.post("/jobs", status_code=201, responses=_ENQUEUED, summary="Enqueue a job")
async def enqueue(job: NewJob, who: Enqueuer, queue: Queue, request: Request) -> Response:
    """Enqueue one job. A type that nobody declared is taken as well, and waits until somebody does.

    409 (`key_held`, `holder`): its unique key is held, and `on_conflict` is refuse. 429 (`backlog_full`): as many jobs
    of the type are pending as its backlog allows.
    """
    id, created = await queue.submit(who.actor, job.model_dump(), request.headers.get("traceparent"))
    told = {"id": id, "created": created}
    return reply(told, 201 if created else 200, {"Location": f"{request.url.path}/{id}"})


@router.get("/jobs", responses={200: {"model": Page, "description": "A page of jobs."}}, summary="Find jobs")
async def find(chosen: Annotated[Filter, Query()], who: Reader, queue: Queue) -> Response:
    """The newest jobs that match all that is given, newest first, without payloads."""
    page = await queue.find(chosen.model_dump(), chosen.before, chosen.limit)
    return reply({"jobs": [listed(job) for job in page["jobs"]], "next": page["next"]})


@router.get(
    "/jobs/{id}",
    responses={200: {"model": JobDetail, "description": "The job."}, **answers(404)},
    summary="One job in full",
)
async def show(
    id: Id,
    who: Reader,
    queue: Queue,
    payload: Annotated[bool, Query(description="The payload, too.")] = False,
) -> Response:
    """The job with its steps, errors, events and children, and why it is where it is."""
    found = await queue.job(id)
    if found is None:
        raise Problem(404, "no_such_job", f"no job {id}")
    return reply(redacted(detailed(found, payload)))


@router.post("/jobs/{id}/cancel", responses=_BECAME, summary="Cancel a job")
async def cancel(id: Id, who: Operator, queue: Queue, asked: Cancel | None = None) -> Response:
    """A pending job is cancelled at once, a running one is asked to end; one at its end stays as it is."""
    status = await queue.cancel(who.actor, id, asked.reason if asked else None)
    return reply({"id": id, "status": status})


@router.post("/jobs/{id}/retry", responses=_BECAME, summary="Retry a job")
async def retry(id: Id, who: Operator, queue: Queue, asked: Retry | None = None) -> Response:
    """A failed or cancelled job becomes pending and due, with its finished steps unless `fresh`.

    409: it is in another status (`not_retryable`), or another job holds its unique key (`key_held`, `holder`).
    """
    status = await queue.retry(who.actor, id, asked.fresh if asked else False)
    return reply({"id": id, "status": status})


def listed(job: Row) -> Row:
    """A job of a list: what an exception or a handler said is all that may hold a secret there."""
    return {**job, "last_error": redacted(job["last_error"]), "finish_reason": redacted(job["finish_reason"])}


def detailed(found: Row, payload: bool) -> Row:
    """A job as it is answered: `children` are jobs here, not their number."""
    told = {name: value for name, value in found.items() if name not in _LEFT_OUT}
    told["children"] = found["family"]
    told["explain"] = found["explained"]
    told["payload"] = found["payload"] if payload else None
    return told


_LEFT_OUT = ("family", "explained", "usual", "earlier", "now", "payload", "children")
