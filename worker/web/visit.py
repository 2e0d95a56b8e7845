"""What a route asks for: somebody with a scope, and for whatever changes something a request of our own page's.

`same_site` stands before every route of the application, so none can be forgotten. All are coroutines: anything else
would be called in a thread.
"""

import hmac
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from worker.desk import Desk
from worker.web import seen as seen_module
from worker.web.auth import Scope, Visitor
from worker.web.problems import Problem

LOGIN = "/admin/login"
SAFE = ("GET", "HEAD", "OPTIONS")
TOKEN_HEADER = "x-csrf-token"
TOKEN_FIELD = "csrf"
FIELDS = 1_000  # of a form

Fields = dict[str, list[str]]

_scheme = HTTPBearer(auto_error=False, scheme_name="key", description="A key of `[[http.keys]]` in worker.toml.")


def visitor(request: Request) -> Visitor:
    """Whoever asks."""
    found: Visitor | None = request.state.visitor
    if found is None:
        raise Problem(401, "unauthorized", "a key is needed", {"WWW-Authenticate": "Bearer"})
    return found


async def reader(request: Request, _: Annotated[object, Depends(_scheme)]) -> Visitor:
    """Somebody who may look."""
    return _scoped(request, "read")


async def enqueuer(request: Request, _: Annotated[object, Depends(_scheme)]) -> Visitor:
    """Somebody who may enqueue jobs."""
    return _scoped(request, "enqueue")


async def operator(request: Request, _: Annotated[object, Depends(_scheme)]) -> Visitor:
    """Somebody who may cancel, retry, pause."""
    return _scoped(request, "operate")


async def same_site(request: Request) -> None:
    """Refuse what a page of another site makes a browser send; a bearer key is nothing that a browser adds by itself.

    A session needs Origin and token. Where nobody needs a key, so does whoever looks like a browser.
    """
    if request.method in SAFE:
        return
    who: Visitor | None = request.state.visitor
    headers = request.headers
    if who is not None and who.way == "key":
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if (origin is not None and urlsplit(origin).netloc != headers.get("host")) or site not in (None, "same-origin"):
        raise Problem(403, "cross_site", "the request comes from another site")
    if request.url.path == LOGIN or (who is not None and who.way == "open" and origin is None and site is None):
        return  # it needs a key to do anything; or a program on this machine
    if who is None:
        raise Problem(401, "unauthorized", "a key is needed", {"WWW-Authenticate": "Bearer"})
    if origin is None or not hmac.compare_digest((await _token(request)).encode(), who.csrf.encode()):
        raise Problem(403, "cross_site", "the request lacks this page's token; load the page again")


async def form(request: Request) -> Fields:
    """The fields of a form that was posted, each with its values; empty where it was no form."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return {}
    try:
        return parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise Problem(400, "unreadable", "the form cannot be read") from None


async def desk(request: Request) -> Desk:
    """What people may ask of the queue."""
    found: Desk = request.app.state.desk
    return found


async def seen(request: Request) -> seen_module.Seen:
    """What was seen a moment ago."""
    found: seen_module.Seen = request.app.state.seen
    return found


Reader = Annotated[Visitor, Depends(reader)]
Enqueuer = Annotated[Visitor, Depends(enqueuer)]
Operator = Annotated[Visitor, Depends(operator)]
Queue = Annotated[Desk, Depends(desk)]
Seen = Annotated[seen_module.Seen, Depends(seen)]
Form = Annotated[Fields, Depends(form)]


def _scoped(request: Request, scope: Scope) -> Visitor:
    found = visitor(request)
    if not found.may(scope):
        raise Problem(403, "scope", f"this key does not have the scope {scope}")
    return found


async def _token(request: Request) -> str:
    return request.headers.get(TOKEN_HEADER) or (await form(request)).get(TOKEN_FIELD, [""])[0]
