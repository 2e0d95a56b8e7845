"""Raw SQL by asyncpg: claim a batch, call the handlers, complete the batch, in two lanes woken by a NOTIFY."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from bench.peers.process import Tally, main

POLL_SECONDS = 5.0


class Raw:
    """The tables are there already: whoever makes a database for a measurement makes them."""

    async def install(self, dsn: str) -> None:
        """Nothing."""

    async def work(self, dsn: str, settings: dict[str, Any]) -> None:
        tally, rings = Tally(), [asyncio.Event() for _ in range(settings["lanes"])]
        listener = await asyncpg.connect(dsn)
        await listener.add_listener("raw", lambda *_: rings[0].set())  # one lane is woken; the others find a backlog
        await asyncio.gather(*(self._lane(dsn, tally, settings["batch"], ring) for ring in rings))

    async def _lane(self, dsn: str, tally: Tally, batch: int, ring: asyncio.Event) -> None:
        connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
        while True:
            ring.clear()
            rows = await connection.fetch("select * from raw_claim($1)", batch)
            for row in rows:
                tally.add(json.loads(row["payload"]))
            if rows:
                await connection.execute("select raw_complete($1)", [row["id"] for row in rows])
            else:
                await self._rung(ring)

    async def _rung(self, ring: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(ring.wait(), POLL_SECONDS)
        except TimeoutError:
            return

    @asynccontextmanager
    async def producer(self, dsn: str, settings: dict[str, Any]) -> AsyncIterator["Producer"]:
        async with asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
            yield Producer(pool)


class Producer:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def one(self, payload: dict[str, Any]) -> None:
        """The bare INSERT that a single enqueue is measured against."""
        await self._pool.execute("insert into raw_job (payload) values ($1)", json.dumps(payload))

    async def ring(self, payload: dict[str, Any]) -> None:
        """With the ring that a worker needs to be woken."""
        await self._pool.execute("select raw_ring($1)", json.dumps(payload))

    async def many(self, payloads: list[dict[str, Any]]) -> None:
        """The COPY that a bulk enqueue is measured against."""
        rows = [(json.dumps(each),) for each in payloads]
        await self._pool.copy_records_to_table("raw_job", records=rows, columns=["payload"])


if __name__ == "__main__":
    main(Raw())
