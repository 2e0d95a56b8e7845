"""How soon a page of the admin is there, with a million jobs in the table."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from bench.figure import Figure
from bench.ground import Ground
from bench.progress import repeated, say
from worker.config import load
from worker.metrics import Metrics
from worker.pulse import Readiness
from worker.web import Web

JOBS = 1_000_000
ASKED = 40  # times each page
HTTP = '[http]\nlisten = "127.0.0.1:0"\n[job.type_1]\npython = "bench.noop:noop"'
PAGES = {
    "overview_ms": "/admin",
    "overview_week_ms": "/admin?hours=168",
    "jobs_ms": "/admin/jobs",
    "failed_ms": "/admin/jobs?status=failed&type=type_10&since=12h",
    "pending_ms": "/admin/jobs?status=pending",
    "search_in_vain_ms": "/admin/jobs?search=nowhere",
    "search_of_a_tenant_ms": "/admin/jobs?search=nowhere&tenant=tenant-77&status=completed",
    "deep_ms": "/admin/jobs?type=type_4&status=skipped&before=400000",
    "job_ms": "/admin/jobs/777777",
    "types_ms": "/admin/types",
    "schedules_ms": "/admin/schedules",
}


async def pages(ground: Ground, runs: int) -> Figure:
    """The slowest page's p95 with 1,000,000 jobs, of which 100,000 wait; over HTTP, one after the other."""
    jobs = ground.sized(JOBS, least=1000)
    async with ground.database() as (dsn, connection):
        say(f"  pages: {jobs:,} jobs are made")
        await connection.execute("select bench.history($1)", jobs, timeout=600)
        await connection.execute("vacuum analyze worker.job_queue", timeout=600)
        async with _site(ground, dsn) as client:
            told = await repeated("pages", runs, lambda: _all(client))
    return Figure.of("pages", "ms", "< 200", told)


async def _all(client: httpx2.AsyncClient) -> dict[str, float]:
    told = {name: await _p95(client, path) for name, path in PAGES.items()}
    return {"value": max(told.values()), **told}


async def _p95(client: httpx2.AsyncClient, path: str) -> float:
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        answer = await client.get(path)
        took.append(time.perf_counter() - began)
        if answer.status_code not in (200, 404):
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:200]}")
    return sorted(took)[int(ASKED * 0.95) - 1] * 1000


@asynccontextmanager
async def _site(ground: Ground, dsn: str) -> AsyncIterator[httpx2.AsyncClient]:
    config = load(ground.configure(HTTP, ""), {"DATABASE_URL": dsn})
    web = Web.of(config)
    serving = asyncio.create_task(web.serve(Metrics.of(config, "0").registry, Readiness()))
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", trust_env=False, timeout=30) as client:
            yield client
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
