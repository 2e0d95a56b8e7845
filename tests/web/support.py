"""The HTTP side over a real socket, in this very loop."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from worker.config.models import Http
from worker.metrics import Metrics
from worker.pulse import Readiness
from worker.web import Web

KEY = "a-key-that-nobody-guesses"
WRITER = "another-one"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def http(listen: str = "127.0.0.1:0", **keys: tuple[str, list[str]]) -> Http:
    """`[http]` with keys: name → (key, scopes)."""
    given = [{"name": name, "sha256": digest(key), "scopes": scopes} for name, (key, scopes) in keys.items()]
    return Http.model_validate({"listen": listen, "keys": given})


def guarded(listen: str = "0.0.0.0:0") -> Http:
    """Beyond loopback, with a reader's and a writer's key."""
    return http(listen, reader=(KEY, ["read"]), writer=(WRITER, ["enqueue", "operate"]))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Served:
    """A running web side: what it shows can be changed, and it can be asked."""

    def __init__(self, web: Web, client: httpx2.AsyncClient) -> None:
        self.metrics = Metrics({"stats": ["all_time"]})
        self.readiness = Readiness()
        self.client = client
        self.port = web.port

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
        return await self.client.request(method, path, headers=headers)


@asynccontextmanager
async def served(config: Http) -> AsyncIterator[Served]:
    """The web side for these settings, asked over the loopback."""
    web = Web(config)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", trust_env=False) as client:
        side = Served(web, client)
        task = asyncio.create_task(web.serve(side.metrics.registry, side.readiness))
        try:
            yield side
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
