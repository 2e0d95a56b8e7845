"""Oban for Python: one queue in its own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from oban import Oban, worker
from oban.schema import install

from bench.peers.process import Tally, main


@cache
def tally() -> Tally:
    return Tally()


@worker(queue="default")
class Noop:
    async def process(self, job: Any) -> None:
        await tally().run(job.args)


class OfOban:
    async def install(self, dsn: str) -> None:
        pool = await Oban.create_pool(dsn)
        await install(pool)
        await pool.close()

    async def work(self, dsn: str, settings: dict[str, Any]) -> None:
        pool = await Oban.create_pool(dsn, max_size=settings["max_size"])
        async with Oban(pool=pool, queues={"default": settings["limit"]}):
            await asyncio.Event().wait()

    @asynccontextmanager
    async def producer(self, dsn: str, settings: dict[str, Any]) -> AsyncIterator["Producer"]:
        pool = await Oban.create_pool(dsn, min_size=4, max_size=8)
        async with Oban(pool=pool) as client:
            yield Producer(client)
        await pool.close()


class Producer:
    def __init__(self, client: Oban) -> None:
        self._client = client

    async def one(self, payload: dict[str, Any]) -> None:
        await self._client.enqueue(Noop.new(payload))

    async def many(self, payloads: list[dict[str, Any]]) -> None:
        await self._client.enqueue_many([Noop.new(each) for each in payloads])


if __name__ == "__main__":
    main(OfOban())
