"""What stands before the API and the pages: who asks, by which name, for how long, and what every answer carries.

It knows no path but those that are open, so that whoever has no key cannot tell what there is from what there is not.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from worker.config.models import Http
from worker.web.auth import Keys, Visitor, bearer, digest
from worker.web.problems import Problem, plain
from worker.web.session import Sessions, found
from worker.web.tries import Tries

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

REQUEST_SECONDS = 20.0  # from its head to the last byte of its answer; streams have ends of their own
BODY_BYTES = 300_000  # a payload's 65,536 bytes may be written with escapes
LOGIN = "/admin/login"
STATIC = "/admin/static/"
STREAMS = "/api/v1/events"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
FORWARDED = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ALWAYS: Headers = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    # Not no-referrer: with it browsers send `Origin: null` with their own forms.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Gate:
    """Lets in who may come in, and tells the application who it is, as `visitor` in the request's state.

    Args:
        inner: the application behind it.
    """

    def __init__(self, http: Http, sessions: Sessions, tries: Tries, inner: Application) -> None:
        self._keys = Keys(http)
        self._hosts = {*LOOPBACK, *http.hosts, *_own(http.host)}
        self._sessions = sessions
        self._tries = tries
        self._inner = inner

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        headers: Headers = scope["headers"]
        answer = _Answer(send, secure(headers, scope), cacheable=scope["path"].startswith(STATIC))
        try:
            scope.setdefault("state", {})["visitor"] = self._visitor(scope, headers)
            async with asyncio.timeout(None if scope["path"] == STREAMS else REQUEST_SECONDS):
                await self._inner(scope, _bounded(receive), answer)
        except Problem as problem:
            await answer.problem(problem)
        except TimeoutError:
            if not answer.begun:  # else the connection ends with the answer unfinished, which the client notices
                await answer.problem(Problem(408, "too_slow", "the request took too long to arrive"))

    def _visitor(self, scope: Message, headers: Headers) -> Visitor | None:
        """Who asks; None for the login, which is open.

        Raises:
            Problem: nobody who may come in.
        """
        given = values(headers, b"authorization")
        if given:
            return self._by_key(given, address(scope))
        self._check_host(headers)
        visitor = self._sessions.visitor(found(values(headers, b"cookie")))
        if visitor is None and self._keys.open:
            visitor = self._open(headers)
        if visitor is None and scope["path"] != LOGIN and not scope["path"].startswith(STATIC):
            raise unauthorized(scope, headers)
        return visitor

    def _by_key(self, given: list[bytes], client: str) -> Visitor:
        token = bearer(given)
        key = digest(token)
        if not self._tries.may(client, key):
            raise Problem(429, "too_many_tries", "too many wrong keys from this address", {"Retry-After": "60"})
        holder = self._keys.holder(token) if token else None
        if holder is None:
            self._tries.wrong(client)
            raise Problem(401, "unauthorized", "a key is needed", {"WWW-Authenticate": "Bearer"})
        self._tries.right(key)
        return Visitor(holder.name, frozenset(holder.scopes), "key")

    def _check_host(self, headers: Headers) -> None:
        # A page of a stranger's whose name was turned to our address (DNS rebinding) says that name here.
        given = values(headers, b"host")
        name = given[0].decode("latin-1").lower() if len(given) == 1 else ""
        if name not in self._hosts and _without_port(name) not in self._hosts:
            raise Problem(421, "host", "asked under a name that is not in http.hosts")

    def _open(self, headers: Headers) -> Visitor:
        if any(name.lower() in FORWARDED for name, _ in headers):
            raise Problem(401, "unauthorized", "a key is needed behind a proxy", {"WWW-Authenticate": "Bearer"})
        return self._sessions.guest()


class _Answer:
    """`send`, with the headers that every answer carries."""

    def __init__(self, send: Send, https: bool, cacheable: bool) -> None:
        self._send = send
        self._more = ALWAYS + ([(b"strict-transport-security", b"max-age=31536000")] if https else [])
        self._cache = [] if cacheable else [(b"cache-control", b"no-store")]
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message["headers"] = [*message.get("headers", ()), *self._more, *self._cache]
        await self._send(message)

    async def problem(self, problem: Problem) -> None:
        """Answer with a problem."""
        status, body, headers = plain(problem)
        length = (b"content-length", str(len(body)).encode())
        await self({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await self({"type": "http.response.body", "body": body})


def _bounded(receive: Receive) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {BODY_BYTES:,} bytes")
        return message

    return bounded


def unauthorized(scope: Message, headers: Headers) -> Problem:
    """No key and no session: a person is led to the login, a program is told."""
    wants_page = any(b"text/html" in value for value in values(headers, b"accept"))
    if wants_page and scope["method"] in ("GET", "HEAD") and scope["path"].startswith("/admin"):
        return Problem(303, "login", "log in", {"Location": LOGIN})
    return Problem(401, "unauthorized", "a key is needed", {"WWW-Authenticate": "Bearer"})


def values(headers: Headers, wanted: bytes) -> list[bytes]:
    """Of a header, in lower case, all of its values."""
    return [value for name, value in headers if name.lower() == wanted]


def address(scope: Message) -> str:
    """Of the client, as the socket has it."""
    client = scope.get("client")
    return str(client[0]) if client else "?"


def secure(headers: Headers, scope: Message) -> bool:
    """Whether the browser speaks TLS, to us or to a proxy; who lies about it makes its own cookie stricter."""
    return scope.get("scheme") == "https" or values(headers, b"x-forwarded-proto") == [b"https"]


def _own(host: str) -> tuple[str, ...]:
    """The address that is listened on, where it is one that can be asked."""
    return () if host in ("0.0.0.0", "::", "") else (host.lower(), f"[{host.lower()}]")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
