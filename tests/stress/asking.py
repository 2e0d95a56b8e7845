"""What a daemon's HTTP side says while its database is in trouble."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from tests.support import free_port

ASK_SECONDS = 2.0


async def get(port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read(-1)).decode().partition("\r\n\r\n")
                return int(head.split()[1]), body
            finally:
                writer.close()
    except (OSError, IndexError):
        return 0, ""


async def metric(port: int, series: str) -> float:
    """One value of /metrics, as `worker_claims_total{result="failed"}`; 0 where it is not there."""
    _, body = await get(port, "/metrics")
    values = [line.rpartition(" ")[2] for line in body.splitlines() if line.startswith(f"{series} ")]
    return float(values[0]) if values else 0.0


class Readiness:
    """/readyz asked ten times a second; `port` goes into the daemon's [http]."""

    def __init__(self) -> None:
        self.port = free_port()
        self.said: list[tuple[float, bool]] = []  # (when, ready): its changes
        self.outages: list[tuple[float, float]] = []  # from when to when nobody could be ready
        self.ended = 0.0

    @property
    def section(self) -> str:
        """For worker.toml."""
        return f'[http]\nlisten = "127.0.0.1:{self.port}"\n'

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Readiness"]:
        """Ask until the block ends."""
        task = asyncio.create_task(self._ask())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.ended = time.monotonic()

    async def tell(self, connection: asyncpg.Connection) -> None:
        """Give the checker what was said in each second, and the outages."""
        wall = time.time() - time.monotonic()
        spans = zip(self.said, [*(at for at, _ in self.said[1:]), self.ended], strict=True)
        said = [(ready, at + n + wall) for (at, ready), end in spans for n in range(int(end - at) + 1)]
        await connection.executemany("insert into evidence.ready (ready, at) values ($1, to_timestamp($2))", said)
        outages = [(began + wall, ended + wall) for began, ended in self.outages]
        await connection.executemany("insert into evidence.outage values (to_timestamp($1), to_timestamp($2))", outages)

    async def becomes(self, ready: bool, seconds: float) -> float:
        """Wait until it says so; answers with how long that took, or inf when it did not come."""
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.said or self.said[-1][1] is not ready:
                    await asyncio.sleep(0.02)
                return time.monotonic() - began
        return float("inf")

    async def _ask(self) -> None:
        while True:
            status, _ = await get(self.port, "/readyz")
            ready = status == 200
            if not self.said or self.said[-1][1] is not ready:
                self.said.append((time.monotonic(), ready))
            await asyncio.sleep(0.1)
