"""Changes as a stream of server-sent events: one look at the database for all who listen, and none when nobody does."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import orjson
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from worker.errors import Refusal, Unavailable

STREAMS = 30  # at once, of a process
EVERY_SECONDS = 0.4  # between looks
SHARE = 10  # a look that took long is followed by a pause of so many times its length
LIFE_SECONDS = 600.0  # of a stream; a browser comes again by itself, and is asked who it is
SEND_SECONDS = 10.0  # for a client to take what it is sent
SILENT_SECONDS = 15.0  # after which a line is sent all the same, to find out who is gone

_NOTHING: dict[str, Any] = {"nothing": "so far"}

Look = Callable[[list[int]], Awaitable[dict[str, Any]]]


class Changes:
    """What changed, seen by one look for everybody.

    Args:
        look: asks the database, for the queue and for jobs that somebody looks at.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._watched: Counter[int] = Counter()
        self._news = asyncio.Event()  # replaced with each
        self._looking: asyncio.Task[None] | None = None
        self._last: dict[str, Any] = {}
        self._version = 0
        self._streams = 0
        self.closed = False

    @property
    def version(self) -> int:
        """Grows with each change that was seen."""
        return self._version

    @property
    def full(self) -> bool:
        """Whether no more streams are taken."""
        return self.closed or self._streams >= STREAMS

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self._tell()
        if self._looking is not None:
            self._looking.cancel()

    async def follow(self, job: int | None = None) -> AsyncGenerator[bytes, None]:
        """Lines of a stream: `changed` when anything did, `job` when this job did, `away` while nobody can tell.

        The first tells that the stream is there; a client that had missed something looks again at it.
        """
        async with self._following(job):
            until = time.monotonic() + LIFE_SECONDS
            seen, seen_job, version = _NOTHING, None, -1
            yield b"retry: 2000\n\n"
            while not self.closed and time.monotonic() < until:
                if await self._newer(version):
                    version, last = self._version, self._last
                    if (told := last.get("queue", {})) != seen:
                        seen = told
                        yield _event("changed" if told else "away", {"running": told.get("running")})
                    if job is not None and (digest := last.get("jobs", {}).get(str(job))) != seen_job:
                        seen_job = digest
                        yield _event("job", {"id": job})
                elif not self.closed:
                    yield b": nothing new\n\n"

    async def _newer(self, version: int) -> bool:
        """Wait for another state than that of `version`; False when there was none for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENT_SECONDS):
                while self._version <= max(version, 0) and not self.closed:
                    await self._news.wait()
        return self._version > max(version, 0)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def _following(self, job: int | None) -> AsyncIterator[None]:
        self._streams += 1
        self._watched.update([job] if job is not None else [])
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_again(), name="changes")
        try:
            yield
        finally:
            self._streams -= 1
            if job is not None:
                self._watched[job] -= 1
                self._watched += Counter()  # those nobody looks at any more

    async def _look_again(self) -> None:
        while self._streams and not self.closed:
            began = time.monotonic()
            try:
                found = await self._look(sorted(self._watched))
                told = {"jobs": found.pop("jobs"), "queue": found}
            except (Refusal, Unavailable):
                told = {}
            if told != self._last or self._version == 0:
                self._last = told
                self._version += 1
                self._tell()
            await asyncio.sleep(max(EVERY_SECONDS, SHARE * (time.monotonic() - began)))


class Stream(Response):
    """An answer without end, to a client that must take what it is sent."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client is gone, too slow, or the lines end."""
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(_gone(receive))
        sending = asyncio.ensure_future(self._sent(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, sending):
                task.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)

    async def _sent(self, send: Send) -> None:
        async with aclosing(self._lines) as lines:
            async for line in lines:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
