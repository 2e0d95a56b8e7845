"""Errors as answers: application/problem+json with a code that programs can go by, and never a word too much."""

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from worker.errors import Refusal, Unavailable
from worker.log import safe

TYPE = "application/problem+json"

# What SQLSTATEs of ours, and of bounds that a row met, mean over HTTP; any other is a fault of the installation.
CODES: dict[str, tuple[int, str]] = {
    "WK002": (403, "type_not_allowed"),
    "WK003": (409, "key_held"),
    "WK004": (403, "other_tenant"),
    "WK005": (403, "column_not_allowed"),
    "WK008": (404, "no_such_job"),
    "WK011": (429, "backlog_full"),
    "WK020": (409, "not_retryable"),
    "WK021": (404, "no_such_type"),
    "WK022": (404, "no_such_schedule"),
    "WK023": (409, "schedule_off"),
    "WK024": (422, "bad_filter"),
    "WK025": (404, "no_such_bulk"),
    "23514": (422, "invalid_job"),
    "SY001": (400, "no_token"),
    "SY002": (400, "bad_request"),
    "SY003": (409, "sync_running"),
    "SY004": (404, "no_such_sync"),
    "SY005": (503, "too_many_syncs"),
    "SY006": (503, "not_declared"),
    "GS400": (400, "bad_request"),
    "GS403": (403, "other_user"),
    "GS404": (404, "no_such_sync"),
    "GS409": (409, "sync_running"),
    "42501": (503, "not_granted"),
}


class Problem(Exception):
    """An answer that is not the one that was asked for.

    Args:
        status: of HTTP.
        code: for programs; documented in docs/api.md.
        detail: one sentence for people.
        headers: of the answer.
        more: further members of the answer's body.
    """

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.more = headers or {}, more

    def body(self) -> dict[str, Any]:
        """What is answered."""
        title = HTTPStatus(self.status).phrase
        return {"title": title, "status": self.status, "code": self.code, "detail": safe(self.detail), **self.more}


class Told(BaseModel):
    """A problem (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The status of HTTP again.", examples=[404])
    code: str = Field(description="For programs: what the problem is.", examples=["no_such_job"])
    detail: str = Field(description="For people: one sentence.", examples=["no job 17"])


def translated(error: Refusal | Unavailable) -> Problem:
    """What an error of the database is over HTTP."""
    if isinstance(error, Unavailable):
        return Problem(503, "unavailable", str(error), {"Retry-After": "2"})
    # Class 22: a value that no column of that type holds.
    other = (422, "invalid_job") if error.sqlstate.startswith("22") else (503, "database_error")
    status, code = CODES.get(error.sqlstate, other)
    more: dict[str, Any] = {"sqlstate": error.sqlstate}
    if status == 409 and error.detail:
        more["holder"] = int(error.detail) if error.detail.isdigit() else error.detail
    detail = str(error) if status < 500 else f"the database refused: {error}"
    return Problem(status, code, detail, **more)


async def answered(request: Request, problem: Problem) -> Response:
    """The problem as an answer."""
    page = getattr(request.app.state, "problem_page", None)
    if page is not None and _for_eyes(request):
        shown: Response = await page(request, problem)
        shown.headers.update(problem.headers)
        return shown
    return JSONResponse(problem.body(), problem.status, problem.headers, media_type=TYPE)


def _for_eyes(request: Request) -> bool:
    return request.url.path.startswith("/admin") and "text/html" in request.headers.get("accept", "")


@dataclass(frozen=True)
class _Described:
    detail: str
    codes: tuple[str, ...] = field(default=())


_ALWAYS = {
    401: _Described("No key, a wrong one, or a session that is over.", ("unauthorized",)),
    403: _Described("The key's scopes do not allow it, or the request came from another site.",
                    ("scope", "cross_site")),
    408: _Described("The request did not arrive in time.", ("too_slow",)),
    413: _Described("The body is larger than is taken.", ("too_large",)),
    421: _Described("Asked under a name that is not in http.hosts.", ("host",)),
    422: _Described("The request has another shape than is described here.", ("invalid",)),
    429: _Described("Too many wrong keys from this address, which Retry-After bounds, or too many jobs pending.",
                    ("too_many_tries", "backlog_full")),
    503: _Described("The database does not answer, or refuses.", ("unavailable", "not_granted", "database_error")),
}  # fmt: skip
_OTHERS = {400: "The request cannot be read.", 404: "There is none.", 409: "Its state does not allow it."}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: the problems that any may answer with, and these."""
    told = {status: each.detail for status, each in _ALWAYS.items()}
    told |= {status: _OTHERS[status] for status in statuses}
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": detail, "content": {TYPE: schema}} for status, detail in sorted(told.items())}


def plain(problem: Problem) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """The same for the gate, which stands before the application: status, body and headers."""
    body = json.dumps(problem.body()).encode()
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return problem.status, body, [(b"content-type", TYPE.encode()), *headers]
