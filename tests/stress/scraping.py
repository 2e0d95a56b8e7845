"""Those who ask for metrics: many in a hurry, some that never finish asking, and what the answers came to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

ASK = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENCE = 10.0
TRICKLE = 0.5  # seconds between the bytes of who takes his time


class Scraper:
    """Asks one port so many times a second over connections that it keeps.

    Attributes:
        seconds: of each answer.
        failed: how often there was none.
        last: the last answer's body.
    """

    def __init__(self, port: int, per_second: float) -> None:
        self.seconds: list[float] = []
        self.failed = 0
        self.last = ""
        self._port, self._pause = port, 1 / per_second

    async def run(self) -> None:
        """Ask, for ever; a connection that breaks off is made again."""
        due = time.monotonic()
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    while True:
                        due = max(due + self._pause, time.monotonic())
                        await asyncio.sleep(due - time.monotonic())
                        await self._once(reader, writer)
                finally:
                    writer.close()
            except (OSError, EOFError, ValueError):
                self.failed += 1
                await asyncio.sleep(self._pause)

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        writer.write(ASK)
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        self.seconds.append(time.monotonic() - began)
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(head[:40])
        self.last = body.decode()

    def value(self, series: str) -> float | None:
        """Of a series without labels, as the last answer had it."""
        found = [line for line in self.last.splitlines() if line.startswith(f"{series} ")]
        return float(found[0].split()[1]) if found else None


async def _trickle(port: int, opened: list[int]) -> None:
    """A byte now and then; let go, it comes again."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            opened[0] += 1
            writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
            try:
                while not writer.is_closing():
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(TRICKLE)
            finally:
                writer.close()


async def _silence(port: int, opened: list[int]) -> None:
    """Connected, and nothing more; let go, it comes again."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened[0] += 1
            try:
                await reader.read()
            finally:
                writer.close()
        await asyncio.sleep(TRICKLE)


@contextlib.asynccontextmanager
async def scraping(ports: Sequence[int], per_second: int, each: int = 4) -> AsyncIterator[list[Scraper]]:
    """So many scrapes a second, over all ports together, `each` connections to a port."""
    scrapers = [Scraper(port, per_second / len(ports) / each) for port in ports for _ in range(each)]
    async with _beside([scraper.run() for scraper in scrapers]):
        yield scrapers


@contextlib.asynccontextmanager
async def pestering(ports: Sequence[int], each: int) -> AsyncIterator[list[int]]:
    """So many that trickle, and as many that are silent, at every port; tells how many connections they opened."""
    opened = [0]
    async with _beside([kind(port, opened) for port in ports for kind in (_trickle, _silence) for _ in range(each)]):
        yield opened


@contextlib.asynccontextmanager
async def _beside(works: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
