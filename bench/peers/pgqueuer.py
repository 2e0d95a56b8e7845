"""PgQueuer: queue managers side by side in one process, each on a connection of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, Queries, QueueManager

from bench.peers.process import Tally, main


class PgQueuer:
    async def install(self, dsn: str) -> None:
        await Queries(AsyncpgDriver(await asyncpg.connect(dsn))).install()

    async def work(self, dsn: str, settings: dict[str, Any]) -> None:
        tally = Tally()
        await asyncio.gather(*(self._manage(dsn, tally, settings) for _ in range(settings["managers"])))

    async def _manage(self, dsn: str, tally: Tally, settings: dict[str, Any]) -> None:
        manager = QueueManager(Queries(AsyncpgDriver(await asyncpg.connect(dsn))))

        @manager.entrypoint("noop")
        async def noop(job: Job) -> None:
            await tally.run(json.loads(job.payload or b"{}"))

        await manager.run(batch_size=settings["batch_size"])

    @asynccontextmanager
    async def producer(self, dsn: str, settings: dict[str, Any]) -> AsyncIterator["Producer"]:
        async with asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
            yield Producer(Queries(AsyncpgPoolDriver(pool)))


class Producer:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def one(self, payload: dict[str, Any]) -> None:
        await self._queries.enqueue("noop", json.dumps(payload).encode())

    async def many(self, payloads: list[dict[str, Any]]) -> None:
        count = len(payloads)
        await self._queries.enqueue(["noop"] * count, [json.dumps(each).encode() for each in payloads], [0] * count)


if __name__ == "__main__":
    main(PgQueuer())
