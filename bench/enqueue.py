"""What it costs to put a job in: one by one, many at once, and from a trigger while nobody or everybody sleeps.

What is compared takes turns in short slices, so that a slow moment of the machine is everybody's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import asyncpg

from bench.figure import Figure
from bench.flow import daemons
from bench.ground import Ground
from bench.progress import repeated

SINGLE = 5_000
MANY = 100_000
BATCH = 1_000
SLICES = 20
WRITERS = 50
WRITES = 50  # of each writer, in each of its turns
TURNS = 6  # with the wake-up, and as many without
PAYLOAD = '{"n": 1, "pad": "' + "x" * 80 + '"}'

Once = Callable[[], Awaitable[object]]


async def enqueue(ground: Ground, runs: int) -> Figure:
    """A plain INSERT of one row, beside the same into a bare table."""
    told = await repeated("enqueue", runs, lambda: _each(ground, ground.sized(SINGLE, least=SLICES)))
    return Figure.of("enqueue", "jobs/s", "≥ 0.75 of a bare INSERT", told)


async def enqueue_many(ground: Ground, runs: int) -> Figure:
    """`worker.enqueue_many` of 1,000 payloads a call, beside COPY of the same."""
    told = await repeated("enqueue_many", runs, lambda: _many(ground, ground.sized(MANY, least=BATCH)))
    return Figure.of("enqueue_many", "jobs/s", "≥ 0.6 of COPY", told)


async def trigger(ground: Ground, runs: int) -> Figure:
    """Fifty writers whose table's trigger enqueues, with the wake-up's trigger and without it."""
    told = await repeated("trigger", runs, lambda: _writers(ground))
    return Figure.of("trigger", "inserts/s", "≥ 0.95 of the same without wake-up", told)


async def _each(ground: Ground, count: int) -> dict[str, float]:
    async with ground.database() as (_, connection):
        ways = {
            "raw": "insert into raw_job (payload) values ($1)",
            "value": "insert into worker.job_queue (job_type, payload) values ('noop', $1)",
            "by_function": "select worker.enqueue('noop', $1)",
            "without_trigger": "insert into bench.untriggered (job_type, payload) values ('noop', $1)",
        }
        return await _rates({name: await _one(connection, call) for name, call in ways.items()}, count)


async def _one(connection: asyncpg.Connection, call: str) -> Once:
    prepared = await connection.prepare(call)
    return lambda: prepared.fetch(PAYLOAD)


async def _rates(ways: Mapping[str, Once], count: int) -> dict[str, float]:
    """Calls a second of each way, in turns."""
    seconds = dict.fromkeys(ways, 0.0)
    each = max(count // SLICES, 1)
    for turn in range(SLICES + 1):
        for name, once in ways.items():
            began = time.perf_counter()
            for _ in range(each):
                await once()
            seconds[name] += (time.perf_counter() - began) * bool(turn)  # the first one warms up
    return {name: each * SLICES / spent for name, spent in seconds.items()}


async def _many(ground: Ground, count: int) -> dict[str, float]:
    async with ground.database() as (_, connection):
        batch = min(BATCH, max(count // SLICES, 1))
        payloads, bare, rows = [PAYLOAD] * batch, [(PAYLOAD,)] * batch, [("noop", PAYLOAD)] * batch
        call = await connection.prepare("select worker.enqueue_many('noop', $1::jsonb[])")
        columns = ["job_type", "payload"]
        rates = await _rates(
            {
                "value": lambda: call.fetch(payloads),
                "raw": lambda: connection.copy_records_to_table("raw_job", records=bare, columns=["payload"]),
                "by_copy": lambda: connection.copy_records_to_table(
                    "job_queue", schema_name="worker", records=rows, columns=columns
                ),
            },
            count // batch,
        )
        return {name: rate * batch for name, rate in rates.items()}


async def _writers(ground: Ground) -> dict[str, float]:
    """With a daemon that works on what comes in either way: it looks ten times a second by itself."""
    async with ground.database() as (dsn, connection), daemons(ground, dsn, connection, 'poll = "100ms"'):
        writers = [await asyncpg.connect(dsn) for _ in range(WRITERS)]
        seconds = {"value": 0.0, "raw": 0.0}
        for turn in range(TURNS + 1):
            for name, rings in (("value", True), ("raw", False)):
                await connection.execute("select worker.set_ring($1)", rings)
                began = time.perf_counter()
                await asyncio.gather(*(_write(each) for each in writers))
                seconds[name] += (time.perf_counter() - began) * bool(turn)
        for each in writers:
            await each.close()
        return {name: TURNS * WRITERS * WRITES / spent for name, spent in seconds.items()}


async def _write(connection: asyncpg.Connection) -> None:
    for _ in range(WRITES):
        await connection.execute("insert into bench.app_row (payload) values ($1)", PAYLOAD)
