"""The other end of a webhook: it takes its time, says 200, and remembers what came."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg


class Inbox:
    """What came.

    Attributes:
        seconds: before each answer.
        began: requests whose head has come.
        receipts: answered requests by their webhook-id.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.began = 0
        self.receipts: Counter[str] = Counter()
        self.port = 0
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while True:
                await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def tell(self, connection: asyncpg.Connection, *job_types: str) -> None:
        """Give what came to the checker, and of which types to expect it; an id is msg_<job>, and perhaps a digest."""
        await connection.executemany("insert into evidence.hook values ($1)", [(each,) for each in job_types])
        rows = [(name, int(name.split("_")[1])) for name in self.receipts.elements()]
        await connection.executemany("insert into evidence.receipt (webhook_id, job_id) values ($1, $2)", rows)

    async def end(self) -> None:
        """Hang up on everybody."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        await reader.readexactly(int(headers.get("content-length", "0")))
        self.began += 1
        await asyncio.sleep(self.seconds)
        self.receipts[headers.get("webhook-id", "")] += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def inbox() -> AsyncIterator[Inbox]:
    """A receiver on a port of loopback."""
    box = Inbox()
    server = await asyncio.start_server(box.serve, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await box.end()
