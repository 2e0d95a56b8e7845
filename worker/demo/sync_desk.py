"""What the demo of the sync asks and does by SQL, as an application would."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import orjson

from worker.demo.daemon import Daemon
from worker.demo.failure import DemoFailed, must
from worker.demo.place import connected

WAIT_SECONDS = 25.0
LOOK_SECONDS = 0.02


class Desk:
    """An application's connection, and others when several are to call at once."""

    def __init__(self, connection: asyncpg.Connection, url: str) -> None:
        self._connection = connection
        self._url = url

    async def caller(self, user: str) -> int | tuple[str, str]:
        """Somebody with a connection of its own starts a sync: its id, or the refusal."""
        async with connected(self._url) as own:
            try:
                return int(await own.fetchval("select sync.start($1)", user))
            except asyncpg.PostgresError as error:
                return str(error.sqlstate), str(error.detail)

    async def refused(self, user: str) -> tuple[str, str]:
        """Starts a sync that must be refused."""
        answer = await self.caller(user)
        must(not isinstance(answer, int), "it was not refused")
        assert isinstance(answer, tuple)
        return answer

    async def connect(self, user: str, token: str = "secret") -> None:
        """Keeps a token of the provider."""
        await self.ask("select sync.connect($1, 'seller', $2)", user, token)

    async def start(self, user: str) -> int:
        """Starts a sync; answers with its id."""
        return int(await self.ask("select sync.start($1)", user))

    async def ended(self, user: str, sync: int) -> None:
        """Waits for a sync to be completed."""
        await self.until("select sync.status($1, $2) ->> 'active' = 'false'", user, sync, otherwise="it does not end")
        status = (await self.json("select sync.status($1, $2)", user, sync))["status"]
        must(status == "completed", f"it ended as {status}")

    async def json(self, question: str, *arguments: object) -> dict[str, Any]:
        """An answer that is JSON."""
        told: dict[str, Any] = orjson.loads(await self.ask(question, *arguments))
        return told

    async def ask(self, question: str, *arguments: object) -> Any:
        """An answer of one value."""
        return await self._connection.fetchval(question, *arguments)

    async def until(self, question: str, *arguments: object, otherwise: str, daemon: Daemon | None = None) -> None:
        """Asks until the answer is true, or the demo fails."""
        end = time.monotonic() + WAIT_SECONDS
        while not await self.ask(question, *arguments):
            gone = daemon is not None and daemon.ended is not None
            if gone or time.monotonic() > end:
                raise DemoFailed(f"{otherwise}{chr(10) + daemon.said() if daemon else ''}")
            await asyncio.sleep(LOOK_SECONDS)

    async def becomes(self, true: Callable[[], bool], otherwise: str) -> None:
        """Waits for something in this process that nobody announces."""
        end = time.monotonic() + WAIT_SECONDS
        while not true():
            must(time.monotonic() < end, otherwise)
            await asyncio.sleep(LOOK_SECONDS)
