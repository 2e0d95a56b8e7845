"""Jobs by the clock: when next, when last; run now, pause, resume."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import Field

from worker.web.api.models import Answer
from worker.web.api.types import Changed
from worker.web.problems import answers
from worker.web.reply import Strict, reply
from worker.web.visit import Operator, Queue, Reader

router = APIRouter(tags=["schedules"], route_class=Strict)

Name = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="The schedule.", examples=["nightly_stats"])]
_CHANGED: dict[int | str, dict[str, Any]] = {200: {"model": Changed, "description": "Done."}, **answers(404)}


class Schedule(Answer):
    """A schedule."""

    name: str
    state: str = Field(description="on, paused, off, or failing.", examples=["on"])
    cron: str
    zone: str
    job_type: str
    next_at: str | None
    last_at: str | None
    last_jobs: int | None = Field(description="That its last run added.")
    lateness: float | None = Field(description="Of its last run, in seconds.")
    error: str | None


class Schedules(Answer):
    """All of them."""

    schedules: list[Schedule]


class Fired(Answer):
    """A run by hand."""

    name: str
    jobs: int | None = Field(description="That were added; null: a daemon is reading the rows of for_each for it.")


@router.get("/schedules", responses={200: {"model": Schedules, "description": "The schedules."}}, summary="Schedules")
async def schedules(who: Reader, queue: Queue) -> Response:
    """Every schedule with its next and its last run."""
    return reply({"schedules": await queue.schedules()})


@router.post(
    "/schedules/{name}/run",
    responses={
        200: {"model": Fired, "description": "Fired."},
        202: {"model": Fired, "description": "A daemon fires it at its next beat."},
        **answers(404, 409),
    },
    summary="Run a schedule now",
)
async def run(name: Name, who: Operator, queue: Queue) -> Response:
    """Fire it now, also a paused one; its next run stays where it is."""
    jobs = await queue.run_schedule(who.actor, name)
    return reply({"name": name, "jobs": jobs}, 202 if jobs is None else 200)


@router.post("/schedules/{name}/pause", responses=_CHANGED, summary="Pause a schedule")
async def pause(name: Name, who: Operator, queue: Queue) -> Response:
    """It fires no more until it is resumed; runs meanwhile are left out."""
    return reply({"name": name, "changed": await queue.pause_schedule(who.actor, name)})


@router.post("/schedules/{name}/resume", responses=_CHANGED, summary="Resume a schedule")
async def resume(name: Name, who: Operator, queue: Queue) -> Response:
    """End a pause."""
    return reply({"name": name, "changed": await queue.resume_schedule(who.actor, name)})
