"""The admin page: server-rendered, live, and whole without a script."""

from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from starlette.staticfiles import StaticFiles

from worker.web.pages import catalogue, deeds, front, job, jobs, many, overview, stats
from worker.web.shared import Shared

STATIC = Path(__file__).parent.parent / "static"


def join(application: FastAPI) -> None:
    """Add the pages to the application."""
    changes = application.state.changes
    application.state.front = front.Front(application.state.config)
    application.state.shared = Shared(lambda: changes.version)
    application.state.problem_page = front.problem_page
    pages = APIRouter(include_in_schema=False)
    for room in (overview, many, jobs, job, catalogue, stats, deeds):
        pages.include_router(room.router)
    application.include_router(front.router)
    application.include_router(pages, dependencies=[Depends(front.readers_only)])
    application.mount("/admin/static", StaticFiles(directory=STATIC), name="static")
