"""job-queue-worker: the daemon as its users start it, enqueued into from asyncpg."""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from bench.peers.process import Tally, main
from worker import Context

CONFIG = """environment = "test"
[database]
search_path = "public"
[worker]
{settings}
[job.noop]
python = "bench.peers.ours:noop"
"""


async def noop(context: Context) -> None:
    """The handler, in the daemon."""
    await tally().run(context.payload)


@cache
def tally() -> Tally:
    return Tally()


class Ours:
    """The schema is there already: whoever makes a database for a measurement migrates it."""

    async def install(self, dsn: str) -> None:
        """Nothing."""

    async def work(self, dsn: str, settings: dict[str, Any]) -> None:
        """Becomes the daemon, so that its processor time is this process's."""
        config = Path(os.environ["BENCH_REPORT"]).with_suffix(".toml")
        config.write_text(CONFIG.format(settings="\n".join(f"{name} = {value}" for name, value in settings.items())))
        command = [sys.executable, "-m", "worker", "run", "--config", str(config)]
        os.execve(sys.executable, command, {**os.environ, "DATABASE_URL": dsn})

    @asynccontextmanager
    async def producer(self, dsn: str, settings: dict[str, Any]) -> AsyncIterator["Producer"]:
        """A plain INSERT for one, `worker.enqueue_many` for many."""
        async with asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
            yield Producer(pool)


class Producer:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def one(self, payload: dict[str, Any]) -> None:
        await self._pool.execute(
            "insert into worker.job_queue (job_type, payload) values ('noop', $1)", json.dumps(payload)
        )

    async def many(self, payloads: list[dict[str, Any]]) -> None:
        await self._pool.execute(
            "select worker.enqueue_many('noop', $1::jsonb[])", [json.dumps(each) for each in payloads]
        )


if __name__ == "__main__":
    main(Ours())
