"""The few connections of the web side: people's questions wait for each other here, never for the jobs' pools.

Nothing is held while somebody reads an answer slowly: a connection is lent for one call and given back before the first
byte of the answer goes out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from worker.connection import Connection
from worker.database import DATABASE_ERRORS, borrowed, is_transient
from worker.door import Door, is_refusal
from worker.errors import Refusal, Unavailable
from worker.way import CONNECT_SECONDS, Way, explore

CONNECTIONS = 3
TURN_SECONDS = 2.0  # of waiting for a connection, and of finding out the way
CALL_SECONDS = 5.0  # of one statement, on the server
# One statement sets all for the transaction: settings of a session would be a stranger's behind a transaction pooler.
_AS = (
    "select set_config('worker.actor', $1, true), set_config('statement_timeout', $2, true),"
    " set_config('worker.traceparent', $3, true)"
)


class Guests:
    """A pool that connects when it is first asked.

    Args:
        url: of the database; a pooler of any kind may be on the way.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def ask(self, call: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one call that only reads.

        Raises:
            Refusal: by SQLSTATE, the database will not.
            Unavailable: it does not answer, or not in time.
        """
        async with self._translated(), self._lent() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(call, *arguments)
            return rows

    async def act(self, who: str, call: str, *arguments: Any, trace: str = "") -> list[asyncpg.Record]:
        """The rows of one call that changes something, in the name of `who`, part of `trace`; errors as of `ask`."""
        async with self._translated(), self._lent() as connection, connection.transaction():
            await connection.execute(_AS, who, _milliseconds(), trace)
            rows: list[asyncpg.Record] = await connection.fetch(call, *arguments)
            return rows

    def close(self) -> None:
        """End every connection, also those in use: whoever asks now asks a daemon that stops."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Any]:
        pool = self._pool or await self._opened()
        async with borrowed(pool, TURN_SECONDS) as connection:
            yield connection

    async def _opened(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with asyncio.timeout(CONNECT_SECONDS), self._opening:
            if self._pool is None:
                self._pool = await _pool(await explore(self._url))
            return self._pool

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except asyncpg.QueryCanceledError:
            raise Unavailable(f"the database took longer than {CALL_SECONDS:g} s") from None
        except DATABASE_ERRORS as error:
            if is_transient(error) or is_refusal(error) or not isinstance(error, asyncpg.PostgresError):
                raise Unavailable("the database does not answer") from error
            raise Refusal(str(error.sqlstate), error.message or "", error.detail, error.hint) from None


async def _pool(way: Way) -> "asyncpg.Pool[asyncpg.Record]":
    settings = {"statement_timeout": _milliseconds()}

    async def enter(connection: Any) -> None:
        await connection.prepare_for(way, settings)

    given = way.arguments("web", settings)
    pool: asyncpg.Pool[asyncpg.Record] = asyncpg.create_pool(
        connect=Door().connect, min_size=0, max_size=CONNECTIONS, max_inactive_connection_lifetime=60.0,
        command_timeout=CALL_SECONDS + 1, init=enter, reset=_as_it_is, connection_class=Connection, **given,
    )  # fmt: skip
    await pool
    return pool


async def _as_it_is(connection: Any) -> None:
    """Not to be reset: settings are a transaction's here."""


def _milliseconds() -> str:
    return str(int(CALL_SECONDS * 1000))
