"""What the demo of game sync gives its daemons, asks them by HTTP, and asks by SQL, as an application would."""

import asyncio
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg

from worker.demo.failure import DemoFailed

WAIT_SECONDS = 180.0
LOOK_SECONDS = 0.05
READY_SECONDS = 40.0
_BUCKET = re.compile(r'worker_loop_lag_seconds_bucket\{.*?le="([^"]+)"\} (\S+)')

CONFIG = """\
environment = "demo"

[database]
url = "$DATABASE_URL"

[http]
listen = "127.0.0.1:{port}"

[retry]
first = "200ms"
max = "1s"

[job.sync_games]
python = "worker.jobs.games:sync_games"
audit = true
unique_key = "{{platform}}"
unique_while = "active"
rate = {{ limit = 5, per = "10m", key = "{{tenant_id}}" }}

[job.sync_games.settings]
lichess = "{origin}"
chess_com = "{origin}"
engine = "{engine}"
page = {page}
quick_nodes = {quick}
quick_every = 8
deep_nodes = {deep}

[rate.lichess]
limit = {limit}
per = "{span:g}s"

[rate.chess_com]
limit = {limit}
per = "{span:g}s"
"""


class Desk:
    """An application's connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def ask(self, question: str, *arguments: object) -> Any:
        """An answer of one value."""
        return await self._connection.fetchval(question, *arguments)

    async def start(self, user: UUID, platform: str) -> UUID:
        """Start a sync; answers with its id."""
        made: UUID = await self.ask("select sync_id from games.start($1, $2)", user, platform)
        return made

    async def refusal(self, user: UUID, platform: str) -> str:
        """The SQLSTATE by which a start is refused; DemoFailed where it is not."""
        try:
            await self.ask("select sync_id from games.start($1, $2)", user, platform)
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)
        raise DemoFailed("it was not refused")

    async def follow(
        self, sync: UUID, enough: Callable[[dict[str, Any]], bool], tell: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """Look at a sync until that is enough; answers with how it is then."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            row = await self._connection.fetchrow("select * from games.status($1)", sync)
            assert row is not None
            seen = dict(row)
            if seen["games_found"]:
                tell(seen["games_analyzed"] + seen["games_failed"], seen["games_found"])
            if enough(seen):
                return seen
            if seen["status"] in ("completed", "failed") or time.monotonic() > end:
                raise DemoFailed(f"the sync is {seen['status']}: {seen['error']}")
            await asyncio.sleep(LOOK_SECONDS)

    async def effort(self, sync: UUID, deep_nodes: int) -> dict[str, int]:
        """What the analyses of a sync cost."""
        row = await self._connection.fetchrow("select * from demo.effort($1, $2)", sync, deep_nodes)
        assert row is not None
        return dict(row)


class Looks:
    """A daemon's HTTP side, on a port that nobody has."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    async def ready(self) -> None:
        """The daemon claims."""
        end = time.monotonic() + READY_SECONDS
        while await asyncio.to_thread(self._get, "/readyz") is None:
            if time.monotonic() > end:
                raise DemoFailed("the daemon is not ready")
            await asyncio.sleep(LOOK_SECONDS)

    async def lag(self) -> dict[str, Any]:
        """How late its event loop woke: looks, how many were at most 50 ms late, and the bound of all, in seconds."""
        text = await asyncio.to_thread(self._get, "/metrics")
        buckets = [(float(bound), int(float(count))) for bound, count in _BUCKET.findall(text or "")]
        looks = buckets[-1][1]
        within = next(count for bound, count in buckets if bound >= 0.05)
        return {"looks": looks, "within_50_ms": within, "most": next(b for b, count in buckets if count == looks)}

    def _get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None
