"""Receivers that do what none should, each on a port of its own of loopback."""

import asyncio
import contextlib
import gzip
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

Manner = Callable[["Caller"], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\n"
ZEROS = b"\0" * 65_536


@dataclass
class Caller:
    """One connection that came in."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def asked(self) -> bytes:
        """The head of its request."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def for_ever(self, part: bytes, pause: float = 0.0) -> None:
        while not self.writer.is_closing():
            await self.say(part)
            await asyncio.sleep(pause)

    def reset(self) -> None:
        """RST, not FIN."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


async def silent(caller: Caller) -> None:
    await asyncio.Event().wait()


def said(*parts: bytes) -> Manner:
    """Answers with these bytes, then closes."""

    async def manner(caller: Caller) -> None:
        await caller.asked()
        await caller.say(*parts)

    return manner


def endless(first: bytes, again: bytes, pause: float = 0.0) -> Manner:
    """Answers, and does not stop."""

    async def manner(caller: Caller) -> None:
        await caller.asked()
        await caller.say(first)
        await caller.for_ever(again, pause)

    return manner


async def resets(caller: Caller) -> None:
    caller.reset()


async def resets_in_the_middle(caller: Caller) -> None:
    await caller.asked()
    await caller.say(HEAD + b"content-length: 100\r\n\r\nabc")
    caller.reset()


def bomb() -> bytes:
    """1 GB of zeros, packed twice."""
    once = gzip.compress(ZEROS * 256, 9)
    return gzip.compress(once * 64, 9)


# Name → manner, and whether what came counts as an answer.
MANNERS: dict[str, tuple[Manner, bool]] = {
    "silent": (silent, False),
    "hangs_after_its_headers": (endless(HEAD + b"content-length: 10\r\n\r\n", b"", 0.1), False),
    "drips": (endless(HEAD + b"content-length: 9999\r\n\r\n", b"x", 0.05), False),
    "drips_its_headers": (endless(HEAD, b"a: b\r\n", 0.05), False),
    "endless_chunks": (endless(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + ZEROS + b"\r\n"), True),
    "endless_until_closed": (endless(HEAD + b"connection: close\r\n\r\n", ZEROS), True),
    "ten_gigabytes": (endless(HEAD + b"content-length: 10737418240\r\n\r\n", ZEROS), True),
    "endless_header": (endless(HEAD + b"a: ", b"x" * 65_536), False),
    "endless_headers": (endless(HEAD, b"a: b\r\n" * 10_000), False),
    "endless_continue": (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.001), False),
    "bomb": (
        said(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb()), bomb()),
        True,
    ),
    "http_0_9": (said(b"hello\r\n"), False),
    "http_2": (said(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 100), False),
    "status_of_six_digits": (said(b"HTTP/1.1 999999 No\r\n\r\n"), False),
    "status_of_letters": (said(b"HTTP/1.1 OK OK\r\n\r\n"), False),
    "two_lengths": (said(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"), False),
    "negative_length": (said(HEAD + b"content-length: -1\r\n\r\n"), False),
    "nonsense_chunk": (said(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), False),
    "says_nothing": (said(b""), False),
    "resets": (resets, False),
    "resets_in_the_middle": (resets_in_the_middle, False),
}


@contextlib.asynccontextmanager
async def receiving(manner: Manner) -> AsyncIterator[int]:
    """A receiver of that manner; yields its port. Its connections end with it."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await manner(Caller(reader, writer))
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def never_accepting() -> Iterator[int]:
    """A port whose queue of connections is full: who connects hears nothing at all."""
    with contextlib.ExitStack() as open_sockets:
        listening = open_sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in itertools.repeat(None, 4):
            filler = open_sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
