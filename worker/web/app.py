"""Three answers as a plain ASGI application: alive, ready, metrics. None of them asks the database.

Everything else is the site's, where there is one.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from worker.web.auth import Keys
from worker.web.exposition import Exposition

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[int, bytes, str]

PATHS = ("/healthz", "/readyz", "/metrics")
TEXT = "text/plain; charset=utf-8"


class Readiness(Protocol):
    """What the daemon knows about itself."""

    @property
    def ready(self) -> bool: ...


class Site(Protocol):
    """The API and the pages, as an ASGI application that lets in whom it will."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None: ...

    def end_streams(self) -> None: ...

    def close(self) -> None: ...


class App:
    """Answers GET and HEAD of /healthz, which is open, and of /readyz and /metrics, which beyond loopback need a key.

    A refusal says nothing: neither what is wrong with the key nor whether the path exists.
    """

    def __init__(self, keys: Keys, registry: CollectorRegistry, readiness: Readiness, site: Site | None = None) -> None:
        self._keys = keys
        self._exposition = Exposition(registry)
        self._readiness = readiness
        self._site = site

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        if self._site is not None and scope["path"] not in PATHS:
            await self._site(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        status, body, content = await self._answer(scope["path"], scope["method"], headers)
        await send({"type": "http.response.start", "status": status, "headers": _headers(status, body, content)})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, path: str, method: str, headers: list[tuple[bytes, bytes]]) -> Answer:
        if path != "/healthz" and not self._keys.allow(_values(headers, b"authorization"), "read"):
            return 401, b"unauthorized\n", TEXT
        if path not in PATHS:
            return 404, b"not found\n", TEXT
        if method not in {"GET", "HEAD"}:
            return 405, b"method not allowed\n", TEXT
        if path == "/metrics":
            return await self._metrics(b",".join(_values(headers, b"accept")).decode("latin-1"))
        return self._ready() if path == "/readyz" else (200, b"ok\n", TEXT)  # answered at all: the loop turns

    def _ready(self) -> Answer:
        return (200, b"ready\n", TEXT) if self._readiness.ready else (503, b"not ready\n", TEXT)

    async def _metrics(self, accept: str) -> Answer:
        return 200, *await self._exposition.text(accept)


def _values(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name.lower() == wanted]


def _headers(status: int, body: bytes, content: str) -> list[tuple[bytes, bytes]]:
    more = {401: [(b"www-authenticate", b"Bearer")], 405: [(b"allow", b"GET, HEAD")]}
    return [
        (b"content-type", content.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *more.get(status, []),
    ]
