"""What a drained job costs, part by part, in processor time: the executor alone, a claim and a settle by 500.

The executor works on answers that are ready, with the collector as Python sets it and as `worker run` does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import asyncpg

from bench.flow import FAST, NOOP
from bench.ground import Ground, cpu, ground
from worker import config
from worker.bell import Bell
from worker.cli.daemon import collect_seldom
from worker.context import Context
from worker.executor import Executor
from worker.handlers import coroutine
from worker.job_queue import COLUMNS, Claimed, JobQueue
from worker.metrics import Metrics
from worker.outcome import Completed
from worker.poller import Poller
from worker.report import Reporter
from worker.settler import Settler
from worker.verdict import Verdict

JOBS, BATCH, RUNS = 40_000, 500, 6
DONE = Completed()
PAYLOAD = '{"n": 1, "pad": "' + "x" * 80 + '"}'


LOOKED = (0, 1, 1, None, None)  # parked, xmin, xmax, next_due, places
NAMED = {"id": 0, "parked": COLUMNS, "xmin": COLUMNS + 1, "xmax": COLUMNS + 2, "next_due": COLUMNS + 3,
         "places": COLUMNS + 4}  # fmt: skip


class Row(tuple[Any, ...]):
    """A row as the driver gives it: by number, by name, by slice."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        return tuple.__getitem__(self, NAMED[key] if isinstance(key, str) else key)


class Ready(NamedTuple):
    """What the queue's connections would answer, at once and without any server."""

    left: list[int]
    done: list[int]

    async def fetch(self, query: str, *given: Any) -> list[Any]:
        if "claim" in query:
            _me, _batch, _types, n, _after = given
            count = min(n, self.left[0], BATCH)
            self.left[0] -= count
            rows = [Row((*_row(self.left[0] + n), *LOOKED)) for n in range(count)]
            return rows or [Row((*[None] * COLUMNS, *LOOKED))]
        await asyncio.sleep(0)
        self.done[0] += len(given[1])
        return [[[]]]

    async def execute(self, query: str, *given: Any) -> None:
        """Nothing."""


def _row(n: int) -> tuple[Any, ...]:
    return (n, "noop", PAYLOAD, 100, 1, 5, n, None, "c", None, None, None, None, 0, 0, 0.01, None, True)


async def measure() -> dict[str, float]:
    """Microseconds a job, by part; medians."""
    with ground() as here:
        os.environ.setdefault("DATABASE_URL", here.server.dsn())  # which the configuration wants to know
        path = here.configure(NOOP, FAST)
        told = {"executor, collector as Python sets it": await _median(partial(_executed, path))}
        with _seldom():
            told["executor, collector as worker run sets it"] = await _median(partial(_executed, path))
        parts = [await _backend(here) for _ in range(RUNS)]
    return told | {name: statistics.median(each[name] for each in parts) for name in parts[0]}


def report(result: dict[str, float]) -> str:
    """Lines for people."""
    return "\n".join(f"{value:6.1f} µs a job  {name}" for name, value in result.items())


@contextmanager
def _seldom() -> Iterator[None]:
    before = gc.get_threshold()
    collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _median(once: Any) -> float:
    return statistics.median([await once() for _ in range(RUNS)])


async def _executed(path: Any) -> float:
    loaded = config.load(path)
    ready = Ready([JOBS], [0])
    queue = JobQueue(ready, 1, ["noop"])  # type: ignore[arg-type]
    metrics = Metrics.of(loaded, "0")
    reporter, settler = Reporter(metrics, loaded.job, 1.0), Settler(queue)
    executor = Executor(
        loaded.job, {"noop": coroutine.build(loaded.job["noop"])},
        lambda jobs: Context(jobs, {}, queue, None, reporter),  # type: ignore[arg-type]
        settler=settler, reporter=reporter, concurrency=1_000,
    )  # fmt: skip
    poller = Poller(queue, executor, Bell(queue, 5.0, lambda: True), metrics, concurrency=1_000, prefetch=1_000)
    began = time.process_time()
    duties = [asyncio.create_task(settler.run()), asyncio.create_task(poller.run())]
    async with asyncio.timeout(60):
        while ready.done[0] < JOBS:
            await asyncio.sleep(0.001)
    spent = time.process_time() - began
    for duty in duties:
        duty.cancel()
    await asyncio.gather(*duties, return_exceptions=True)
    return spent / JOBS * 1e6


async def _backend(here: Ground) -> dict[str, float]:
    async with here.database() as (dsn, connection):
        await connection.fetch("""select * from worker.declare('[{"name": "noop"}]')""")
        await connection.execute("select bench.fill($1)", JOBS)
        me = await connection.fetchval("select worker.register('h', 1, '0', '{noop}', 10, '1 h')")
        # As a daemon's: a session that has filled a table keeps the memory it got for that, and gets none for a claim.
        fresh = await asyncpg.connect(dsn, server_settings={"jit": "off"})
        try:
            return await _spent(fresh, JobQueue(fresh, me, ["noop"]))  # type: ignore[arg-type]
        finally:
            await fresh.close()


async def _spent(connection: asyncpg.Connection, queue: JobQueue) -> dict[str, float]:
    pid = await connection.fetchval("select pg_backend_pid()")
    before = cpu(pid)
    claimed: list[Claimed] = []
    while (looked := await queue.claim(BATCH)).jobs:
        claimed.append(looked)
    between = cpu(pid)
    for looked in claimed:
        await queue.settle([Verdict.of(job, DONE) for job in looked.jobs])
    return {"claim by 500, Postgres": (between - before) / JOBS * 1e6,
            "settle by 500, Postgres": (cpu(pid) - between) / JOBS * 1e6}  # fmt: skip
