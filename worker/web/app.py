"""Three answers as a plain ASGI application: alive, ready, metrics. None of them asks the database."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.web.auth import Keys

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


class App:
    """Answers GET and HEAD of /healthz, which is open, and of /readyz and /metrics, which beyond loopback need a key.

    A refusal says nothing: neither what is wrong with the key nor whether the path exists.
    """

    def __init__(self, keys: Keys, registry: CollectorRegistry, readiness: Readiness) -> None:
        self._keys = keys
        self._registry = registry
        self._readiness = readiness

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
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
        encode, content = choose_encoder(accept)
        # In a thread: a hundred steps make 2,600 lines and tens of milliseconds, in which no job would go on.
        return 200, await asyncio.to_thread(encode, self._registry), content


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
