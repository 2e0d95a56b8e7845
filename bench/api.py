"""What the API costs the jobs: 200 requests a second beside 500 jobs a second, and those jobs without any."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Sequence

import asyncpg
import orjson

from bench.figure import Figure
from bench.flow import NOOP, PLAIN, daemons
from bench.ground import ROOT, Ground, memory
from bench.latency import RATE, SECONDS, percentile, stream
from bench.progress import repeated

REQUESTS = 200  # a second
LANES = 4
HTTP = '[http]\nlisten = "127.0.0.1:{port}"\n'


async def api(ground: Ground, runs: int) -> Figure:
    """The 99th percentile of the jobs' wait with requests, beside the one without."""
    told = await repeated("api", runs, lambda: _api(ground))
    return Figure.of("api", "ms p99", "≤ 1.5 of without, wrong ≤ 0, memory_mb ≤ 100 MB", told)


async def _api(ground: Ground) -> dict[str, float]:
    raw, _ = await _waits(ground, 0)
    waits, told = await _waits(ground, REQUESTS)
    return {"value": percentile(waits, 0.99), "raw": percentile(raw, 0.99), "p50": percentile(waits, 0.5),
            "raw_p50": percentile(raw, 0.5), **told}  # fmt: skip


async def _waits(ground: Ground, requests: float) -> tuple[Sequence[float], dict[str, float]]:
    """Milliseconds from due to start of each job, and what came of the requests meanwhile."""
    port = _free_port()
    jobs = NOOP + HTTP.format(port=port)
    async with (
        ground.database() as (dsn, connection),
        daemons(ground, dsn, connection, PLAIN, jobs) as running,
        contextlib.AsyncExitStack() as ending,
    ):
        producers = [await asyncpg.connect(dsn) for _ in range(LANES)]
        for each in producers:
            ending.push_async_callback(each.close)
        count = ground.sized(round(RATE * SECONDS), least=200) // LANES
        asking = asyncio.create_task(_asking(port, requests, count * LANES / RATE))
        await asyncio.gather(*(stream(each, RATE / LANES, count) for each in producers))
        told = await asking
        await asyncio.sleep(0.5)
        waits = [row["started"] for row in await connection.fetch("select * from bench.latencies('noop')")]
        return waits, told | {"memory_mb": memory(running[0].pid)}


async def _asking(port: int, requests: float, seconds: float) -> dict[str, float]:
    """In a process of its own: the client must not take the daemon's loop."""
    if not requests:
        return {}
    command = [sys.executable, "-m", "bench.asking", str(port), str(requests), str(seconds)]
    said = await asyncio.to_thread(subprocess.check_output, command, cwd=ROOT, timeout=10 * seconds + 60)
    told: dict[str, float] = orjson.loads(said)
    return told


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
