"""Job types: what is declared, what waits and runs; pause and resume."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import Field

from worker.web.api.models import Answer
from worker.web.problems import answers
from worker.web.reply import Strict, reply
from worker.web.visit import Operator, Queue, Reader, Seen

router = APIRouter(tags=["types"], route_class=Strict)

Name = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="The type.", examples=["stats_update"])]


class Type(Answer):
    """A job type. Counts stop at 5,000: `due` and `later` for each priority, the others over all types."""

    job_type: str
    declared: bool
    enabled: bool
    paused: bool
    daemons: int = Field(description="Alive, and running this type.")
    due: int
    later: int
    parked: int = Field(description="Due, but behind their concurrency key.")
    running: int
    oldest_due: float | None = Field(description="Seconds.")


class Types(Answer):
    """All of them, undeclared ones included that have jobs."""

    types: list[Type]


class Changed(Answer):
    """What was done."""

    name: str
    changed: bool = Field(description="False: it was so already.")


_CHANGED: dict[int | str, dict[str, Any]] = {200: {"model": Changed, "description": "Done."}, **answers(404)}


@router.get("/types", responses={200: {"model": Types, "description": "The types."}}, summary="Job types")
async def types(who: Reader, seen: Seen) -> Response:
    """Every type with its switches and its jobs that are not at their end; up to a second old."""
    return reply({"types": (await seen.overview())["types"]})


@router.post("/types/{type}/pause", responses=_CHANGED, summary="Pause a type")
async def pause(type: Name, who: Operator, queue: Queue) -> Response:
    """No more jobs of the type are claimed until it is resumed; those that run go on."""
    return reply({"name": type, "changed": await queue.pause(who.actor, type)})


@router.post("/types/{type}/resume", responses=_CHANGED, summary="Resume a type")
async def resume(type: Name, who: Operator, queue: Queue) -> Response:
    """End a pause."""
    return reply({"name": type, "changed": await queue.resume(who.actor, type)})
