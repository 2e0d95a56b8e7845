"""The API and the pages as one application; imported only where `[http]` is configured and `api` is on."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.routing import Match

from worker.config import Config
from worker.desk import Desk
from worker.errors import Refusal, Unavailable
from worker.web import api, login, pages, systems
from worker.web.description import describe
from worker.web.gate import Gate
from worker.web.problems import Problem, answered, answers, translated
from worker.web.seen import Seen
from worker.web.session import Sessions
from worker.web.stream import Changes
from worker.web.tries import Tries
from worker.web.visit import same_site

# What FastAPI would tell a tracer of its own accord holds paths and queries; docs/traces.md says what there is.
QUIET: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

ABOUT = """Jobs of job-queue-worker: enqueue, look, cancel, retry, pause.

Every request needs a key of `[[http.keys]]` as `Authorization: Bearer …`; only a listener on loopback without keys
needs none. A key has scopes: `read` looks, `enqueue` adds jobs, `operate` cancels, retries, pauses and runs.
Errors are `application/problem+json` with a `code`. Instants are text in ISO 8601, spans are seconds.
"""

TAGS = [
    {"name": "jobs", "description": "Jobs one by one: enqueue, find, look at, cancel, retry."},
    {"name": "many jobs", "description": "Cancel or retry all jobs that a filter names; `dry_run` only counts them."},
    {"name": "types", "description": "Job types as they are declared, with what waits and runs; pause and resume."},
    {"name": "schedules", "description": "Jobs by the clock: when next, when last; run now, pause, resume."},
    {"name": "queue", "description": "How the queue is, and a stream that tells when it changed."},
    {"name": "stats update", "description": "In the first system's shapes; there when `stats_update` is declared."},
    {"name": "sync", "description": "The sync manager; there when `sync` is declared."},
    {"name": "game sync", "description": "Under the original's paths; there when `sync_games` is declared."},
]


class Site:
    """The API and the pages behind their gate, as an ASGI application.

    Args:
        config: with `[http]` and an address of the database.
    """

    def __init__(self, config: Config) -> None:
        assert config.http is not None
        assert config.database.url is not None
        self.desk = Desk(config.database.url.get_secret_value())
        self.changes = Changes(self.desk.changes)
        sessions, tries = Sessions(config.http), Tries()
        self.application = build(config, self.desk, self.changes, sessions, tries)
        self._gate = Gate(config.http, sessions, tries, self.application)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        await self._gate(scope, receive, send)

    def end_streams(self) -> None:
        """End what would go on by itself; what is being answered goes on."""
        self.changes.close()

    def close(self) -> None:
        """End the connections to the database."""
        self.desk.close()


def build(config: Config, desk: Desk, changes: Changes, sessions: Sessions, tries: Tries) -> FastAPI:
    """The application behind the gate."""
    application = FastAPI(
        title="job-queue-worker", version="1", description=ABOUT, openapi_tags=TAGS,
        docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False,
        dependencies=[Depends(same_site)], responses=answers(), telemetry=QUIET,
    )  # fmt: skip
    state = application.state
    state.config, state.desk, state.changes, state.sessions, state.tries = config, desk, changes, sessions, tries
    state.seen = Seen(desk)
    application.include_router(api.router)
    application.include_router(login.router)
    for router in systems.routers(config.job):
        application.include_router(router)
    describe(application)
    pages.join(application)
    for kind, handler in _HANDLERS.items():
        application.add_exception_handler(kind, handler)
    return application


async def _problem(request: Request, error: Any) -> Response:
    return await answered(request, error)


async def _of_database(request: Request, error: Any) -> Response:
    return await answered(request, translated(error))


async def _invalid(request: Request, error: Any) -> Response:
    faults = [{"at": [str(part) for part in each["loc"]], "message": each["msg"]} for each in error.errors()]
    return await answered(request, Problem(422, "invalid", "the request has another shape", faults=faults))


async def _of_starlette(request: Request, error: Any) -> Response:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    code = codes.get(error.status_code, "unreadable")
    headers = {"Allow": ", ".join(_methods(request))} if error.status_code == 405 else dict(error.headers or {})
    return await answered(request, Problem(error.status_code, code, str(error.detail), headers))


def _methods(request: Request) -> list[str]:
    """What this path can be asked with; each route for itself knows one."""
    routes = request.app.routes
    asked = {each: {**request.scope, "method": each} for each in METHODS}
    return [each for each, scope in asked.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _fault(request: Request, error: Exception) -> Response:
    """Ours; what it was stands in the log, where starlette's own end of the line writes it."""
    return await answered(request, Problem(500, "fault", "something went wrong here; the log tells what"))


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
    Problem: _problem,
    Refusal: _of_database,
    Unavailable: _of_database,
    RequestValidationError: _invalid,
    HTTPException: _of_starlette,
    Exception: _fault,
}
