"""Procrastinate: one worker, as many asynchronous jobs at once as its pool has connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from procrastinate import App, PsycopgConnector

from bench.peers.process import Tally, main


class Procrastinate:
    async def install(self, dsn: str) -> None:
        app = App(connector=PsycopgConnector(conninfo=dsn))
        async with app.open_async():
            await app.schema_manager.apply_schema_async()

    async def work(self, dsn: str, settings: dict[str, Any]) -> None:
        tally = Tally()
        app = App(connector=PsycopgConnector(conninfo=dsn, max_size=settings["max_size"]))

        @app.task(name="noop")
        async def noop(**payload: Any) -> None:
            await tally.run(payload)

        async with app.open_async():
            await app.run_worker_async(concurrency=settings["concurrency"], install_signal_handlers=False)

    @asynccontextmanager
    async def producer(self, dsn: str, settings: dict[str, Any]) -> AsyncIterator["Producer"]:
        app = App(connector=PsycopgConnector(conninfo=dsn, min_size=4, max_size=4))
        async with app.open_async():
            yield Producer(app)


class Producer:
    def __init__(self, app: App) -> None:
        self._noop = app.configure_task("noop")

    async def one(self, payload: dict[str, Any]) -> None:
        await self._noop.defer_async(**payload)

    async def many(self, payloads: list[dict[str, Any]]) -> None:
        await self._noop.batch_defer_async(*payloads)


if __name__ == "__main__":
    main(Procrastinate())
