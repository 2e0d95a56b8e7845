"""Types and schedules: what is declared, and what somebody switched."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from worker.web.pages.findings import state
from worker.web.pages.front import front
from worker.web.visit import Queue

router = APIRouter()


@router.get("/admin/types")
async def types(request: Request, desk: Queue) -> Response:
    """Every type."""
    found = [{**type_, "state": state(type_)} for type_ in await desk.types()]
    return await front(request).page(request, "types.html", types=found)


@router.get("/admin/schedules")
async def schedules(request: Request, desk: Queue) -> Response:
    """Every schedule."""
    return await front(request).page(request, "schedules.html", schedules=await desk.schedules())
