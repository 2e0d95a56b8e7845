"""A login: a key is shown once, and a session is what the browser keeps. The form is the page's."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse

from worker.web.auth import Keys, digest
from worker.web.gate import LOGIN, address, secure
from worker.web.session import Sessions, set_cookie
from worker.web.tries import Tries
from worker.web.visit import Form

HOME = "/admin"

router = APIRouter(include_in_schema=False)


async def _keys(request: Request) -> Keys:
    return Keys(request.app.state.config.http)


@router.post("/admin/login")
async def login(request: Request, form: Form, keys: Annotated[Keys, Depends(_keys)]) -> RedirectResponse:
    """Begin a session with the key in the field `key`, and go on to `next`."""
    tries: Tries = request.app.state.tries
    sessions: Sessions = request.app.state.sessions
    given = form.get("key", [""])[0].strip().encode()[:1_000]
    onward = own_path(form.get("next", [""])[0]) or HOME
    client, shown = address(request.scope), digest(given)
    if not tries.may(client, shown):
        return _again("later", onward)
    holder = keys.holder(given)
    if holder is None:
        tries.wrong(client)
        return _again("wrong", onward)
    tries.right(shown)
    answer = RedirectResponse(onward, 303)
    answer.headers["set-cookie"] = set_cookie(sessions.begin(holder), secure=_secure(request))
    return answer


@router.post("/admin/logout")
async def logout(request: Request) -> RedirectResponse:
    """End the session: the browser forgets it."""
    answer = RedirectResponse(LOGIN, 303)
    answer.headers["set-cookie"] = set_cookie("", secure=_secure(request))
    return answer


def _again(why: str, onward: str) -> RedirectResponse:
    return RedirectResponse(f"{LOGIN}?{urlencode({why: 1, 'next': onward})}", 303)


def own_path(path: str) -> str:
    """A path of the pages as it is, whatever else as an empty text: never another site's, whatever a link says."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and "//" not in path
    return path if plain and (path == HOME or path.startswith((f"{HOME}/", f"{HOME}?"))) else ""


def _secure(request: Request) -> bool:
    return secure(request.scope["headers"], request.scope)
