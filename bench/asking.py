"""`python -m bench.asking PORT RATE SECONDS`: so many requests a second of the API, paced by the clock, over a few
connections; JSON of what came of them on standard output."""

import asyncio
import itertools
import statistics
import sys
import time

import httpx2
import orjson

LANES = 8
# What a page and a monitor ask, the lists more often than the sums.
PATHS = (
    "/api/v1/jobs?limit=50",
    "/api/v1/types",
    "/api/v1/jobs/1",
    "/api/v1/jobs?status=failed",
    "/api/v1/stats?hours=1",
)


async def asked(port: int, rate: float, seconds: float) -> dict[str, float]:
    """Milliseconds of an answer by p50, p95, p99; how many there were, and how many were none."""
    took: list[float] = []
    wrong = 0
    count, began = round(rate * seconds), time.perf_counter()
    turns = itertools.count()

    async def lane(client: httpx2.AsyncClient) -> None:
        nonlocal wrong
        while (n := next(turns)) < count:
            await asyncio.sleep(max(began + n / rate - time.perf_counter(), 0))
            sent = time.perf_counter()
            try:
                right = (await client.get(PATHS[n % len(PATHS)])).status_code == 200
            except httpx2.TransportError:  # told as what it is: no answer
                right = False
            took.append((time.perf_counter() - sent) * 1000)
            wrong += not right

    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        await asyncio.gather(*(lane(client) for _ in range(LANES)))
    cuts = statistics.quantiles(took, n=100)
    return {"requests": len(took), "wrong": wrong, "a_second": len(took) / (time.perf_counter() - began),
            "request_p50_ms": cuts[49], "request_p95_ms": cuts[94], "request_p99_ms": cuts[98]}  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(
        orjson.dumps(asyncio.run(asked(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))).decode()
    )
