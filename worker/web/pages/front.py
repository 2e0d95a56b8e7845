"""What all pages share: the templates, the frame around a page, what was said after a deed."""

import asyncio
import hashlib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from worker.config import Config
from worker.web.gate import LOGIN
from worker.web.pages.words import FILTERS
from worker.web.problems import Problem

HERE = Path(__file__).parent.parent
PAGES = (
    ("/admin", "Overview"),
    ("/admin/jobs", "Jobs"),
    ("/admin/types", "Types"),
    ("/admin/schedules", "Schedules"),
)
EVENTS = "/api/v1/events"

# After a deed the browser is sent to a page with one of these words in its address: no text of an address is shown.
SAID = {
    "retried": ("good", "It is pending again and due now."),
    "cancelled": ("good", "Cancelled."),
    "asked": ("again", "It was asked to end; its SQL is being stopped."),
    "paused": ("good", "Paused: no more claims until it is resumed."),
    "resumed": ("good", "Resumed."),
    "ran": ("good", "Its jobs are enqueued."),
    "ran_soon": ("good", "A daemon reads its rows and enqueues the jobs with its next beat."),
    "was_so": ("again", "It was so already."),
    "enqueued": ("good", "Enqueued."),
    "bulk": ("good", "{} done, {} left alone."),
}
TITLES = {404: "There is none", 403: "Not allowed", 503: "The database does not answer"}
LOGIN_FAULTS = {
    "wrong": "That key is not known here.",
    "later": "Too many wrong keys from here: try again in a minute.",
}

router = APIRouter(include_in_schema=False)


class Front:
    """Renders pages, all of them with autoescape."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._version = metadata.version("job-queue-worker")
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, auto_reload=False,
        )  # fmt: skip
        self._templates.filters |= FILTERS
        self._marks: dict[str, str] = {}

    async def page(self, request: Request, template: str, status: int = 200, **about: Any) -> HTMLResponse:
        """A whole page; a live part of it is taken from the whole by the browser."""
        who = request.state.visitor
        frame = {
            "environment": self.config.environment, "version": self._version, "who": who, "pages": PAGES,
            "here": request.url.path, "url": _own_address(request), "stream": EVENTS, "asset": self._asset,
            "now": datetime.now(UTC), "said": _said(request.query_params.get("said", "")),
        }  # fmt: skip
        # In a thread: a list of jobs takes milliseconds, in which no job would go on.
        text = await asyncio.to_thread(self._templates.get_template(template).render, frame | about)
        return HTMLResponse(text, status)

    def _asset(self, name: str) -> str:
        """The address of a static file, which changes with its content."""
        if name not in self._marks:
            self._marks[name] = hashlib.sha256((HERE / "static" / name).read_bytes()).hexdigest()[:12]
        return f"/admin/static/{name}?{self._marks[name]}"


def front(request: Request) -> Front:
    """The one of this application."""
    found: Front = request.app.state.front
    return found


def done(to: str, word: str, *numbers: int) -> RedirectResponse:
    """To a page of ours that says what was done."""
    mark = "&" if "?" in to else "?"
    return RedirectResponse(f"{to}{mark}said={':'.join((word, *map(str, numbers)))}", 303)


def _said(given: str) -> dict[str, Any] | None:
    word, *numbers = given.split(":")[:3]
    if word not in SAID or not all(number.isdecimal() and number.isascii() and len(number) < 19 for number in numbers):
        return None
    tone, text = SAID[word]
    if word == "bulk":
        return {"tone": tone, "text": text.format(*[*numbers, "0", "0"][:2]), "job": None}
    return {"tone": tone, "text": text, "job": numbers[0] if numbers else None}


async def readers_only(request: Request) -> None:
    """Pages are for whoever may read."""
    who = request.state.visitor
    if who is None or not who.may("read"):
        raise Problem(403, "scope", "this key does not have the scope read")


@router.get(LOGIN)
async def login(request: Request) -> Response:
    """The form that asks for a key."""
    fault = next((text for name, text in LOGIN_FAULTS.items() if name in request.query_params), None)
    return await front(request).page(request, "login.html", 401 if fault else 200, fault=fault, stream=None)


async def problem_page(request: Request, problem: Problem) -> Response:
    """A problem for eyes."""
    title = TITLES.get(problem.status, "That did not work")
    about = {"title": title, "detail": problem.detail, "code": problem.status, "stream": None}
    return await front(request).page(request, "problem.html", problem.status, **about)


def _own_address(request: Request) -> str:
    """The path and query of this page, without what was said."""
    kept = request.url.remove_query_params("said")
    return f"{kept.path}?{kept.query}" if kept.query else kept.path
