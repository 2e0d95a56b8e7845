"""A proxy in front of Postgres that loses what it is told to lose."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

READY = b"Z\x00\x00\x00\x05I"  # ReadyForQuery, idle: the server has committed


class Proxy:
    """Forwards a unix socket to the server's.

    Attributes:
        cut_after: when a client's message holds these bytes, the server runs it to its end and commits, but the client
            never hears of it: the connection is closed instead. Once, or `always`.
        cut_before: the same, but the server is not told either.
        refusing: new connections are closed at once, and `drop` ends the old ones: the database is away.
    """

    def __init__(self, dsn: str, folder: Path) -> None:
        url = urlsplit(dsn)
        query = parse_qs(url.query)
        self._host = query["host"][0] if "host" in query else (url.hostname or "localhost")
        self._port = int(query["port"][0]) if "port" in query else (url.port or 5432)
        self._folder = folder
        self._user = url.username or "postgres"
        self._path = url.path
        self.cut_after: bytes | None = None
        self.cut_before: bytes | None = None
        self.cuts = 0
        self.cut = asyncio.Event()
        self.refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def dsn(self) -> str:
        """The database's address through this proxy."""
        return f"postgresql://{self._user}@{self._path}?host={quote(str(self._folder))}&port=5432"

    def drop(self) -> None:
        """End every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self.refusing:
                await self._forward(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._host.startswith("/"):
            there = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            there = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, there[1]}
        deaf = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(reader, there[1], deaf))
                both.create_task(self._down(there[0], writer, deaf))
        except* (OSError, _Over):
            pass
        finally:
            self._writers -= {writer, there[1]}
            there[1].transport.abort()

    async def _up(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if self.cut_before is not None and self.cut_before in data:
                self.cut_before = None
                self._count()
                raise _Over
            if self.cut_after is not None and self.cut_after in data:
                self.cut_after = None
                deaf.set()
            server.write(data)
            await server.drain()
        raise _Over

    async def _down(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, deaf: asyncio.Event) -> None:
        while data := await server.read(65536):
            if deaf.is_set():
                if data.endswith(READY):
                    self._count()
                    raise _Over
                continue
            writer.write(data)
            await writer.drain()
        raise _Over

    def _count(self) -> None:
        self.cuts += 1
        self.cut.set()

    async def end(self) -> None:
        self.drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Over(Exception):
    """This connection is over."""


@contextlib.asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy for the database at `dsn`."""
    with tempfile.TemporaryDirectory(prefix="proxy-", dir="/tmp") as folder:
        proxy = Proxy(dsn, Path(folder))
        server = await asyncio.start_unix_server(proxy.serve, f"{folder}/.s.PGSQL.5432")
        try:
            yield proxy
        finally:
            server.close()
            await proxy.end()
