"""A network that fails on purpose, between daemons and Postgres.

Each connection is known by its duty: what follows `worker ` in its application_name (control, step, beat, listen), so
that a fault can be aimed at one kind, or at all of them (`ALL`). It listens on a unix socket and on a TCP port of
loopback.
"""

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

from tests.stress.wire import IDLE, Link, duty

ALL = ""
CHUNK = 65536
STALL_SECONDS = (0.2, 1.0)


# Told of each statement: ("before" | "after", link, text). It may wait; True ends the connection there and then.
Told = Callable[[str, Link, bytes], Awaitable[bool]]


class FaultProxy:
    """Forwards, delays, holds, cuts.

    Attributes:
        delay: seconds that each chunk waits, drawn uniformly from this range.
        rate: bytes a second that each connection carries each way, 0 = as fast as it goes.
        stalls: share of the chunks that wait as for a lost packet to be sent again.
        refusing: new connections are closed at once.
        mute: new connections are taken and never answered.
        lose: statements holding one of these bytes are run by the server, and their answer is lost with the
            connection; a text is taken off the list when it was used, unless `always`.
        lost: how many answers were lost.
        knocks: when each new connection was asked for (monotonic), whatever became of it.
        on_statement: told of each statement before the server has it, and when its whole answer is here but not
            forwarded yet: committed, and the client does not know.
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
        self.stalls = 0.0
        self.refusing = self.mute = self.always = False
        self.lose: list[bytes] = []
        self.lost = 0
        self.on_statement: Told | None = None
        self.links: set[Link] = set()
        self.knocks: list[float] = []
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

    def freeze(self, duty: str = ALL) -> int:
        """A black hole for the connections that are there; new ones get through. Answers with how many there were."""
        aimed = [link for link in self.links if duty in ("", link.duty)]
        for link in aimed:
            link.frozen = True
        return len(aimed)

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
        self.knocks.append(time.monotonic())
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
        link = Link(writer, there, duty(startup))
        self.links.add(link)
        try:
            there.write(startup)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(reader, link))
                both.create_task(self._down(back, link))
        except* (OSError, RuntimeError, _Over):  # RuntimeError: it was half closed
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
            await self._before(link, link.statements.run(data))
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
            if link.ran and data.endswith(IDLE):
                await self._after(link)
            link.client.write(data)
            await link.client.drain()
        await self._pass(link, 0)
        raise _Over

    async def _pass(self, link: Link, size: int) -> None:
        if link.frozen:
            await asyncio.Event().wait()
        while self._held & {ALL, link.duty}:
            await self._flow.wait()
            await asyncio.sleep(0.01)
        pause = self._chance.uniform(*self.delay) + (size / self.rate if self.rate else 0.0)
        if self.stalls and self._chance.random() < self.stalls:
            pause += self._chance.uniform(*STALL_SECONDS)
        if pause:
            await asyncio.sleep(pause)

    async def _before(self, link: Link, texts: list[bytes]) -> None:
        link.deaf = link.deaf or any(map(self._loses, texts))
        for text in texts:
            if self.on_statement and await self.on_statement("before", link, text):
                raise _Over
        link.ran = texts or link.ran

    async def _after(self, link: Link) -> None:
        texts, link.ran = link.ran, []
        for text in texts:
            if self.on_statement and await self.on_statement("after", link, text):
                raise _Over

    def _loses(self, run: bytes) -> bool:
        """Whether the answer to this statement is to be lost."""
        for text in self.lose:
            if text in run:
                if not self.always:
                    self.lose.remove(text)
                return True
        return False


class _Over(Exception):
    """This connection is over."""


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
