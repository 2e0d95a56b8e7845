"""What every queue's own process does, whichever queue it is: `python -m bench.peers.NAME VERB DSN …`.

    install DSN                        makes its tables
    work DSN                           runs jobs until it is killed
    enqueue DSN ONE_BY_ONE IN_BULK     tells how many jobs a second it put in, one by one and in bulk
    stream DSN JOBS RATE               puts one in, waits for a line on standard input, then JOBS at RATE a second

Nothing but the standard library here: it runs in the queue's own environment. From the environment of the process:
BENCH_SETTINGS (JSON), BENCH_REPORT (a file), BENCH_JOBS (after how many the report is written), BENCH_HOLD (jobs stay).
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

PAD = "x" * 80
CHUNK = 1_000
WARM = 20


class Producer(Protocol):
    async def one(self, payload: dict[str, Any]) -> None:
        """Put one job in, and wait for it to be committed."""

    async def many(self, payloads: list[dict[str, Any]]) -> None:
        """The same for many, in the way the queue means for it."""


class Queue(Protocol):
    async def install(self, dsn: str) -> None: ...
    async def work(self, dsn: str, settings: dict[str, Any]) -> None: ...
    def producer(self, dsn: str, settings: dict[str, Any]) -> contextlib.AbstractAsyncContextManager[Producer]: ...


class Tally:
    """What the handlers of one worker saw.

    When the first and the last began (epoch seconds), how much processor time the process had used before the first,
    how long each job had waited (milliseconds).
    """

    def __init__(self) -> None:
        self.holds = bool(os.environ.get("BENCH_HOLD"))
        self._report = Path(os.environ["BENCH_REPORT"])
        self._jobs = int(os.environ["BENCH_JOBS"])
        self._first = self._cpu = 0.0
        self._count = 0
        self._waits: list[float] = []

    def add(self, payload: dict[str, Any]) -> None:
        """A handler has begun."""
        now = time.time()
        self._count += 1
        if self._count == 1:
            self._first, self._cpu = now, time.process_time()
            self._report.with_suffix(".first").touch()
        if "at" in payload:
            self._waits.append((now - payload["at"]) * 1000)
        if self._count == self._jobs:
            self._tell(now)

    async def run(self, payload: dict[str, Any]) -> None:
        """The whole handler: nothing, or a job that does not end."""
        self.add(payload)
        if self.holds:
            await asyncio.sleep(3600)

    def _tell(self, last: float) -> None:
        made = self._report.with_suffix(".new")
        made.write_text(json.dumps({"first": self._first, "cpu": self._cpu, "last": last, "waits": self._waits}))
        made.rename(self._report)


def main(queue: Queue) -> None:
    """Do what the command line says."""
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    verb, dsn, *numbers = sys.argv[1:]
    settings = json.loads(os.environ.get("BENCH_SETTINGS", "{}"))
    work = {"install": lambda: queue.install(dsn), "work": lambda: queue.work(dsn, settings)}
    if verb in work:
        asyncio.run(work[verb]())
    else:
        asyncio.run(_produce(queue.producer(dsn, settings), verb, [int(each) for each in numbers]))


async def _produce(opened: contextlib.AbstractAsyncContextManager[Producer], verb: str, numbers: list[int]) -> None:
    async with opened as producer:
        if verb == "enqueue":
            print(json.dumps(await enqueued(producer, *numbers)), flush=True)
        else:
            await stream(producer, *numbers)


async def enqueued(producer: Producer, one_by_one: int, in_bulk: int) -> dict[str, float]:
    """Jobs a second, one by one and in bulk; puts in WARM + one_by_one + in_bulk."""
    for n in range(WARM):
        await producer.one({"n": n, "pad": PAD})
    began = time.perf_counter()
    for n in range(one_by_one):
        await producer.one({"n": n, "pad": PAD})
    single = one_by_one / (time.perf_counter() - began)
    began = time.perf_counter()
    for start in range(0, in_bulk, CHUNK):
        await producer.many([{"n": n, "pad": PAD} for n in range(start, min(start + CHUNK, in_bulk))])
    return {"enqueue": single, "enqueue_many": in_bulk / (time.perf_counter() - began)}


async def stream(producer: Producer, jobs: int, rate: int, *, lanes: int = 4) -> None:
    """Paced by the clock, so that a slow moment is caught up; stays connected until standard input ends."""
    ring = getattr(producer, "ring", producer.one)
    await ring({"n": 0})
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()

    async def lane(first: int) -> None:
        for n in range(first, jobs, lanes):
            await asyncio.sleep(max(began + n / rate - time.perf_counter(), 0))
            await ring({"n": n, "at": time.time()})

    await asyncio.gather(*(lane(first) for first in range(lanes)))
    print(json.dumps({"rate": jobs / (time.perf_counter() - began)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextlib.asynccontextmanager
async def ready(producer: Producer) -> AsyncIterator[Producer]:
    """For producers that have nothing to close."""
    yield producer
