"""The API and the pages over a real socket and a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from tests.heart import configured
from tests.web.support import bearer, digest
from worker.config import Config
from worker.metrics import Metrics
from worker.pulse import Readiness
from worker.web import Web

READ, WRITE, ALL = "a-reader-nobody-guesses", "a-producer-nobody-guesses", "an-operator-nobody-guesses"
KEYS = "".join(
    f'[[http.keys]]\nname = "{name}"\nsha256 = "{digest(key)}"\nscopes = {scopes}\n'
    for name, key, scopes in (
        ("viewer", READ, '["read"]'),
        ("producer", WRITE, '["read", "enqueue"]'),
        ("admin", ALL, '["read", "enqueue", "operate"]'),
    )
)
JOBS = '[job.work]\npython = "tests.sample_jobs:done"\n[job.other]\npython = "tests.sample_jobs:done"\n'


class Standing:
    """A web side that can be asked; `key` is sent unless it is None."""

    def __init__(self, web: Web, client: httpx2.AsyncClient) -> None:
        self.web = web
        self.client = client
        self.port = web.port

    async def ask(
        self, method: str, path: str, key: str | None = ALL, *, json: Any = None, headers: Any = None, **more: Any
    ) -> httpx2.Response:
        """One request."""
        given = (bearer(key) if key else {}) | (headers or {})
        if json is not None:
            more["json"] = json
        return await self.client.request(method, path, headers=given, **more)

    async def get(self, path: str, key: str | None = ALL, **headers: str) -> httpx2.Response:
        return await self.ask("GET", path, key, headers=headers)

    async def post(self, path: str, json: Any = None, key: str | None = ALL, **headers: str) -> httpx2.Response:
        return await self.ask("POST", path, key, json=json, headers=headers)


def site_config(folder: Path, dsn: str, http: str = KEYS, jobs: str = JOBS, listen: str = "127.0.0.1:0") -> Config:
    """A configuration with `[http]` on a free port."""
    return configured(folder, dsn, f'[http]\nlisten = "{listen}"\n{http}\n{jobs}')


@asynccontextmanager
async def standing(config: Config) -> AsyncIterator[Standing]:
    """The whole web side of a configuration, asked over the loopback."""
    web = Web.of(config)
    client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", trust_env=False, timeout=20)
    async with client:
        metrics = Metrics.of(config, "0")
        task = asyncio.create_task(web.serve(metrics.registry, Readiness()))
        try:
            yield Standing(web, client)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def state(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """Everything that a request could have changed."""
    found: list[asyncpg.Record] = await connection.fetch(
        "select 'job', count(*), max(id) from worker.job_queue union all"
        " select 'event', count(*), max(id) from worker.job_event union all"
        " select 'paused', count(*), 0 from worker.job_type where paused"
    )
    return found
