"""How fast a queue that is full is emptied, by one process."""

import asyncio
import subprocess
import sys

import orjson

from bench.figure import Figure
from bench.ground import ROOT, Ground, cpu

JOBS = 100_000
BATCH = 500
LANES = 2
LAST_IS_DONE = "select finished_at is not null from worker.job_queue order by id desc limit 1"  # cheap, so asked often
OPEN = "select exists (select from worker.job_queue where finished_at is null)"
NOOP = '[job.noop]\npython = "bench.noop:{handler}"\n'


async def drain(ground: Ground, runs: int, jobs: int = JOBS) -> Figure:
    """No-op jobs."""
    told = [await _both(ground, jobs, "noop", 0.0) for _ in range(runs)]
    return Figure.of("drain", "jobs/s", "≥ 0.6 of raw, stretch 0.8", told)


async def drain_5ms(ground: Ground, runs: int, jobs: int = JOBS) -> Figure:
    """Jobs of five milliseconds."""
    told = [await _both(ground, jobs, "wait_5ms", 0.005) for _ in range(runs)]
    return Figure.of("drain_5ms", "jobs/s", "≥ 0.8 of raw", told)


async def _both(ground: Ground, jobs: int, handler: str, seconds: float) -> dict[str, float]:
    ours = await _ours(ground, jobs, handler, "concurrency = 1000\nprefetch = 1000")
    raw = await _raw(ground, jobs, seconds)
    plain = await _ours(ground, jobs // 5, handler, "")
    return {**ours, "raw": raw["value"], "raw_postgres_cpu_us": raw["postgres_cpu_us"],
            "default_settings": plain["value"]}  # fmt: skip


async def _ours(ground: Ground, jobs: int, handler: str, settings: str) -> dict[str, float]:
    config = ground.configure(NOOP.format(handler=handler), settings)
    async with ground.database() as (dsn, connection):
        async with ground.process(dsn, "-m", "worker", "run", "--config", str(config)) as process:
            # it is up and sleeps before the jobs come in one commit
            while not await connection.fetchval("select exists (select from worker.asleep)"):
                await asyncio.sleep(0.05)
            before, before_postgres = cpu(process.pid), ground.backends_cpu()
            await connection.execute("select bench.fill($1)", jobs)
            filled = ground.backends_cpu() - before_postgres
            while not await connection.fetchval(LAST_IS_DONE) or await connection.fetchval(OPEN):
                await asyncio.sleep(0.1)
            worker = cpu(process.pid) - before
            postgres = ground.backends_cpu() - before_postgres - filled
        seconds = await connection.fetchval("select bench.seconds()")
    return {"value": jobs / seconds, "worker_cpu_us": worker / jobs * 1e6, "postgres_cpu_us": postgres / jobs * 1e6}


async def _raw(ground: Ground, jobs: int, seconds: float) -> dict[str, float]:
    async with ground.database() as (dsn, connection):
        await connection.execute("select raw_fill($1)", jobs)
        before = ground.backends_cpu()
        command = [sys.executable, "-m", "bench.raw_drain", dsn, str(seconds), str(BATCH), str(LANES)]
        said = await asyncio.to_thread(subprocess.check_output, command, cwd=ROOT, timeout=600)
        told = orjson.loads(said)
        assert told["jobs"] == jobs
        return {"value": jobs / told["seconds"], "postgres_cpu_us": (ground.backends_cpu() - before) / jobs * 1e6}
