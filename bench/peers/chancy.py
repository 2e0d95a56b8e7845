"""Chancy: one queue on its asyncio executor, polled again as soon as a job has ended."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from chancy import Chancy, Job, Queue, Worker

from bench.peers.process import Tally, main

QUIET = logging.getLogger("chancy.bench")  # its own logger writes a line for each job
QUIET.setLevel(logging.WARNING)


@cache
def tally() -> Tally:
    return Tally()


async def noop(**payload: Any) -> None:
    await tally().run(payload)


class OfChancy:
    async def install(self, dsn: str) -> None:
        async with Chancy(dsn, log=QUIET) as app:
            await app.migrate()

    async def work(self, dsn: str, settings: dict[str, Any]) -> None:
        executor = Chancy.Executor[settings["executor"]]
        queue = Queue(
            "default",
            concurrency=settings["concurrency"],
            executor=executor,
            eager_polling=settings["eager_polling"],
        )
        async with Chancy(dsn, log=QUIET) as app:
            await app.declare(queue, upsert=True)
            async with Worker(app) as worker:
                await worker.wait_for_shutdown()

    @asynccontextmanager
    async def producer(self, dsn: str, settings: dict[str, Any]) -> AsyncIterator["Producer"]:
        async with Chancy(dsn, min_connection_pool_size=4, max_connection_pool_size=4, log=QUIET) as app:
            yield Producer(app)


class Producer:
    def __init__(self, app: Chancy) -> None:
        self._app = app
        self._job = Job.from_func(noop)

    async def one(self, payload: dict[str, Any]) -> None:
        await self._app.push(self._job.with_kwargs(**payload))

    async def many(self, payloads: list[dict[str, Any]]) -> None:
        jobs = [self._job.with_kwargs(**each) for each in payloads]
        async for _ in self._app.push_many(jobs, batch_size=len(jobs)):
            pass


if __name__ == "__main__":
    main(OfChancy())
