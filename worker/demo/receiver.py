"""The receiver of the cache webhook: a real HTTP server on loopback, for the demo and for tests.

It answers as `examples/receivers/` does, and first whatever it was told to: an outage, a part that fails, a redirect.
"""

import asyncio
import hmac
import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

MOST_BYTES = 1 << 20  # of a request's body
_DRIP = b"x" * 4096


@dataclass(frozen=True)
class Reply:
    """What to answer instead of the truth.

    Attributes:
        manner: hang sends nothing, endless never stops sending, broken closes in the middle of the body, unframed does
            not say how long it is: its end is that of the connection.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    manner: Literal["whole", "hang", "endless", "broken", "unframed"] = "whole"

    @classmethod
    def json(cls, status: int, value: Any, **headers: str) -> "Reply":
        """An answer with JSON in it."""
        return cls(status, json.dumps(value).encode(), {"content-type": "application/json", **headers})

    @classmethod
    def partial(cls, failed: Sequence[Any]) -> "Reply":
        """207: these tags could not be made stale."""
        return cls.json(207, {"success": False, "failed_tags": list(failed)})


@dataclass(frozen=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """`async with Receiver("key") as receiver`: serves at `receiver.url` until the end.

    Args:
        key: the bearer key that callers must show; without one everybody may call.

    Attributes:
        calls: every request, in the order of arrival.
        tags: the tags that were acknowledged as stale.
    """

    def __init__(self, key: str | None = None) -> None:
        self._key = key
        self._plan: deque[Reply] = deque()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: set[asyncio.Task[None]] = set()
        self.calls: list[Call] = []
        self.tags: list[str] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/api/internal/cache/invalidate"

    def plan(self, *replies: Reply) -> None:
        """Answer the next requests with these, one each."""
        self._plan.extend(replies)

    async def start(self) -> None:
        """Listen; after a `stop` at the same port again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Go away: who connects is refused, who is connected is cut off."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        call = await _read(reader)
        self.calls.append(call)
        reply = await self._reply(call)
        if reply.manner == "hang":
            await asyncio.Event().wait()
        endless, broken = reply.manner == "endless", reply.manner == "broken"
        unframed = reply.manner == "unframed"
        headers = {"connection": "close" if unframed else "keep-alive", **reply.headers}
        if not (endless or unframed):
            headers.setdefault("content-length", str(len(reply.body) + broken))
        lines = [f"HTTP/1.1 {reply.status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + reply.body)
        await writer.drain()
        while endless:
            writer.write(_DRIP)
            await writer.drain()
        return not (broken or unframed)

    async def _reply(self, call: Call) -> Reply:
        return self._plan.popleft() if self._plan else self._answer(call)

    def _answer(self, call: Call) -> Reply:
        if self._key is not None and not _shows(call.headers.get("authorization", ""), self._key):
            return Reply.json(401, {"success": False, "error": "unauthorized"})
        try:
            tags = _tags(call.json)
        except ValueError as error:
            return Reply.json(400, {"success": False, "error": str(error)})
        self.tags += tags
        return Reply.json(200, {"success": True, "invalidated_tags": tags, "failed_tags": []})


def _shows(header: str, key: str) -> bool:
    return hmac.compare_digest(header.encode("utf-8", "replace"), f"Bearer {key}".encode())


def _tags(body: Any) -> list[str]:
    """The tags of a well-formed body {tags, source, requestId}."""
    if not isinstance(body, dict) or not isinstance(body.get("tags"), list):
        raise ValueError("tags must be an array")
    if not body["tags"] or not all(isinstance(tag, str) and tag for tag in body["tags"]):
        raise ValueError("tags must be texts")
    if not isinstance(body.get("source"), str) or not isinstance(body.get("requestId"), str | None):
        raise ValueError("source and requestId must be texts")
    return list(body["tags"])


async def _read(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MOST_BYTES:
        raise ValueError("too large")
    return Call(method, path, headers, await reader.readexactly(length))
