"""What it costs to put a job in: one by one, many at once, and from a trigger while nobody or everybody sleeps."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg

from bench.figure import Figure
from bench.ground import Ground

SINGLE = 5_000
MANY = 100_000
WRITERS = 50
WRITES = 200  # of each writer
PAYLOAD = '{"n": 1, "pad": "' + "x" * 80 + '"}'


async def enqueue(ground: Ground, runs: int) -> Figure:
    """A plain INSERT of one row, beside the same into a bare table."""
    told = [await _each(ground, SINGLE) for _ in range(runs)]
    return Figure.of("enqueue", "jobs/s", "≥ 0.75 of a bare INSERT", told)


async def enqueue_many(ground: Ground, runs: int) -> Figure:
    """`worker.enqueue_many` of 1,000 payloads a call, beside COPY of the same."""
    told = [await _many(ground, MANY) for _ in range(runs)]
    return Figure.of("enqueue_many", "jobs/s", "≥ 0.6 of COPY", told)


async def trigger(ground: Ground, runs: int) -> Figure:
    """Fifty writers whose table's trigger enqueues, with the wake-up's trigger and without it."""
    told = [await _writers(ground) for _ in range(runs)]
    return Figure.of("trigger", "inserts/s", "≥ 0.95 of the same without wake-up", told)


async def _each(ground: Ground, count: int) -> dict[str, float]:
    async with ground.database() as (_, connection):
        bare = await connection.prepare("insert into raw_job (payload) values ($1)")
        ours = await connection.prepare("insert into worker.job_queue (job_type, payload) values ('noop', $1)")
        function = await connection.prepare("select worker.enqueue('noop', $1)")
        return {
            "raw": await _rate(count, lambda: bare.fetch(PAYLOAD)),
            "value": await _rate(count, lambda: ours.fetch(PAYLOAD)),
            "by_function": await _rate(count, lambda: function.fetch(PAYLOAD)),
        }


async def _rate(count: int, once: Callable[[], Awaitable[object]]) -> float:
    for _ in range(50):
        await once()
    began = time.perf_counter()
    for _ in range(count):
        await once()
    return count / (time.perf_counter() - began)


async def _many(ground: Ground, count: int, batch: int = 1_000) -> dict[str, float]:
    async with ground.database() as (_, connection):
        payloads = [PAYLOAD] * batch
        began = time.perf_counter()
        for _ in range(count // batch):
            await connection.fetch("select worker.enqueue_many('noop', $1::jsonb[])", payloads)
        ours = count / (time.perf_counter() - began)
        began = time.perf_counter()
        rows = [(PAYLOAD,)] * batch
        for _ in range(count // batch):
            await connection.copy_records_to_table("raw_job", records=rows, columns=["payload"])
        raw = count / (time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(count // batch // 10):
            await connection.copy_records_to_table(
                "job_queue", schema_name="worker", records=[("noop", PAYLOAD)] * batch, columns=["job_type", "payload"]
            )
        copied = count / 10 / (time.perf_counter() - began)
        return {"value": ours, "raw": raw, "by_copy": copied}


async def _writers(ground: Ground) -> dict[str, float]:
    """With a daemon that sleeps, as it does when there is little to do, so that the first insert rings it."""
    config = ground.configure('[job.noop]\npython = "bench.noop:noop"\n', "")
    async with (
        ground.database() as (dsn, connection),
        ground.process(dsn, "-m", "worker", "run", "--config", str(config)),
    ):
        while not await connection.fetchval("select exists (select from worker.asleep)"):
            await asyncio.sleep(0.05)
        ringing = await _write(dsn)
        await connection.execute("alter table worker.job_queue disable trigger ring")
        silent = await _write(dsn)
        return {"value": ringing, "raw": silent}


async def _write(dsn: str) -> float:
    async def writer() -> None:
        connection = await asyncpg.connect(dsn)
        for _ in range(WRITES):
            await connection.execute("insert into bench.app_row (payload) values ($1)", PAYLOAD)
        await connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    return WRITERS * WRITES / (time.perf_counter() - began)
