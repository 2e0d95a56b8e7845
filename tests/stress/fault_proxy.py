"""A network that fails on purpose, between daemons and Postgres.

Each connection is known by its duty: what follows `worker ` in its application_name (control, step, beat, listen), so
that a fault can be aimed at one kind, or at all of them (`ALL`). It listens on a unix socket and on a TCP port of
loopback.
"""

import asyncio
import contextlib
import random
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

ALL = ""
CHUNK = 65536
IDLE = b"Z\x00\x00\x00\x05I"  # ReadyForQuery outside of a transaction: the server has committed


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    duty: str
    deaf: bool = False  # the server's answer is swallowed, then the connection is cut
    texts: dict[bytes, bytes] = field(default_factory=dict)  # prepared statements by name

    def cut(self) -> None:
        """Both ends see a reset."""
        self.client.transport.abort()
        self.server.transport.abort()


class FaultProxy:
    """Forwards, delays, holds, cuts.

    Attributes:
        delay: seconds that each chunk waits, drawn uniformly from this range.
        rate: bytes a second that each connection carries each way, 0 = as fast as it goes.
        refusing: new connections are closed at once.
        mute: new connections are taken and never answered.
        lose: statements holding one of these bytes are run by the server, and their answer is lost with the
            connection; a text is taken off the list when it was used, unless `always`.
        lost: how many answers were lost.
    """

    def __init__(self, dsn: str, folder: Path, seed: int = 0) -> None:
        url = urlsplit(dsn)
        query = parse_qs(url.query)
        host, port = query.get("host", [url.hostname or "127.0.0.1"])[0], query.get("port", [str(url.port or 5432)])[0]
        self.upstream = (host, int(port))
        self._folder, self._user, self._path = folder, url.username or "postgres", url.path
        self.port = 0
        self.delay = (0.0, 0.0)
        self.rate = 0
        self.refusing = self.mute = self.always = False
        self.lose: list[bytes] = []
        self.lost = 0
        self.links: set[Link] = set()
        self._held: set[str] = set()
        self._flow = asyncio.Event()
        self._flow.set()
        self._chance = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def dsn(self) -> str:
        """The database's address through this proxy, by its socket."""
        return f"postgresql://{self._user}@{self._path}?host={quote(str(self._folder))}&port=5432"

    @property
    def tcp_dsn(self) -> str:
        """The same over TCP."""
        return f"postgresql://{self._user}@127.0.0.1:{self.port}{self._path}"

    def point(self, dsn: str) -> None:
        """New connections go to another server from now on."""
        query = parse_qs(urlsplit(dsn).query)
        self.upstream = (query["host"][0], int(query["port"][0]))

    def cut(self, duty: str = ALL) -> int:
        """Reset the connections of a duty; answers with how many."""
        aimed = [link for link in self.links if duty in ("", link.duty)]
        for link in aimed:
            link.cut()
        return len(aimed)

    def hold(self, duty: str = ALL) -> None:
        """A black hole: nothing is forwarded either way, nothing is closed, until `release`."""
        self._held.add(duty)
        self._flow.clear()

    def release(self, duty: str | None = None) -> None:
        """What was held goes on; `None` = everything."""
        self._held = set() if duty is None else self._held - {duty}
        self._flow.set()
        self._flow.clear()
        if not self._held:
            self._flow.set()

    def half_close(self, duty: str = ALL, towards: str = "server") -> int:
        """Send a FIN one way only."""
        aimed = [link for link in self.links if duty in ("", link.duty)]
        for link in aimed:
            writer = link.server if towards == "server" else link.client
            with contextlib.suppress(OSError):
                writer.write_eof()
        return len(aimed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.mute:
                await asyncio.Event().wait()
            if not self.refusing:
                await self._connect(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def end(self) -> None:
        """Cut everything."""
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await self._startup(reader, writer)
        host, port = self.upstream
        if host.startswith("/"):
            back, there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            back, there = await asyncio.open_connection(host, port)
        link = Link(writer, there, _duty(startup))
        self.links.add(link)
        try:
            there.write(startup)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(reader, link))
                both.create_task(self._down(back, link))
        except* (OSError, _Over):
            pass
        finally:
            self.links.discard(link)
            link.cut()

    async def _startup(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        while True:
            length = await reader.readexactly(4)
            rest = await reader.readexactly(int.from_bytes(length, "big") - 4)
            if rest[:4] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):  # asks for TLS or GSS: there is none
                writer.write(b"N")
                continue
            return length + rest

    async def _up(self, reader: asyncio.StreamReader, link: Link) -> None:
        while data := await reader.read(CHUNK):
            await self._pass(link, len(data))
            if self.lose and self._loses(link, data):
                link.deaf = True
            link.server.write(data)
            await link.server.drain()
        await self._pass(link, 0)
        raise _Over

    async def _down(self, reader: asyncio.StreamReader, link: Link) -> None:
        while data := await reader.read(CHUNK):
            if link.deaf:
                if data.endswith(IDLE):
                    self.lost += 1
                    raise _Over
                continue
            await self._pass(link, len(data))
            link.client.write(data)
            await link.client.drain()
        await self._pass(link, 0)
        raise _Over

    async def _pass(self, link: Link, size: int) -> None:
        while self._held & {ALL, link.duty}:
            await self._flow.wait()
            await asyncio.sleep(0.01)
        pause = self._chance.uniform(*self.delay) + (size / self.rate if self.rate else 0.0)
        if pause:
            await asyncio.sleep(pause)

    def _loses(self, link: Link, data: bytes) -> bool:
        """Whether these messages run a statement whose answer is to be lost; by name, for it is prepared only once."""
        for kind, body in _messages(data):
            if kind == b"P":
                name, _, rest = body.partition(b"\0")
                link.texts[name] = rest.partition(b"\0")[0]
            run = link.texts.get(body.split(b"\0")[1], b"") if kind == b"B" else body if kind == b"Q" else b""
            for text in self.lose:
                if text in run:
                    if not self.always:
                        self.lose.remove(text)
                    return True
        return False


class _Over(Exception):
    """This connection is over."""


def _duty(startup: bytes) -> str:
    words = startup[8:].split(b"\0")
    said = dict(zip(words[::2], words[1::2], strict=False))
    return said.get(b"application_name", b"").decode(errors="replace").removeprefix("worker ")


def _messages(data: bytes) -> list[tuple[bytes, bytes]]:
    """Whole messages at the start of a chunk; asyncpg sends those of one call together."""
    found, at = [], 0
    while at + 5 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        found.append((data[at : at + 1], data[at + 5 : at + 1 + length]))
        at += 1 + length
    return found


@contextlib.asynccontextmanager
async def faulty(dsn: str, seed: int = 0) -> AsyncIterator[FaultProxy]:
    """A proxy before the database at `dsn`."""
    with tempfile.TemporaryDirectory(prefix="faulty-", dir="/tmp") as folder:
        proxy = FaultProxy(dsn, Path(folder), seed)
        unix = await asyncio.start_unix_server(proxy.serve, f"{folder}/.s.PGSQL.5432")
        tcp = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.port = tcp.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            unix.close()
            tcp.close()
            await proxy.end()
