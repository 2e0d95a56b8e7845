"""Connections: two pools, what is set on each connection, and the errors that pass.

Control connections carry the queue's own calls and are never lent to handlers; step connections run the users'
functions. Both are registered in the database under this process, so that its statements can be ended when it dies.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import asyncpg
import structlog
import tenacity

from worker.errors import DatabaseUnreachable

CONTROL_CONNECTIONS = 4
CONTROL_SECONDS = 30.0  # deadline of one control call
CONNECT_SECONDS = 10.0
ACQUIRE_SECONDS = 300.0
RELEASE_SECONDS = 5.0  # for the reset, and for a cancelled statement to end
PERSIST_SECONDS = 15.0

# In one message. DISCARD ALL would drop the prepared statements that asyncpg caches; its own reset leaves role and
# temporary tables behind. The last statement was prepared when the connection was made: when somebody's DEALLOCATE ALL
# dropped it, those of the driver's cache are gone as well, and the reset that fails ends the connection.
INTACT = "prepare worker_intact as select"
FULL_RESET = """
    reset session authorization; reset all; discard temp; select pg_advisory_unlock_all(); unlisten *; close all;
    do $$
    declare
      s text;
    begin
      for s in select p.name from pg_catalog.pg_prepared_statements p
        where p.from_sql and p.name <> 'worker_intact' loop
        execute pg_catalog.format('deallocate %I', s);
      end loop;
    end $$;
    execute worker_intact
"""

# Whatever a call of the database can end with. The internal ones come from a connection that a stop or a restart caught
# in the middle of a message.
DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

_PASSING = ("08", "40001", "40P01", "53", "55P03", "57014", "57P0", "25006")

_log = structlog.get_logger()


def is_transient(error: BaseException) -> bool:
    """True for errors of connections, of restarts and of lost races: the same call may work a moment later."""
    if without_tls(error):
        return False
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate:
        return str(sqlstate).startswith(_PASSING)
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "terminated" in str(error) or "closing" in str(error)
    return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)


def without_tls(error: BaseException) -> bool:
    """True when the server does not speak TLS, or not as the address asks for it: no waiting helps."""
    return isinstance(error, ssl.SSLCertVerificationError) or "rejected SSL upgrade" in str(error)


class Connection(asyncpg.Connection):
    """An asyncpg connection that knows its backend's identity: the pid alone may be used again by another."""

    backend_start: datetime | None = None
    _limit: float | None = None

    async def limit(self, seconds: float) -> None:
        """Set the server's statement timeout for what follows; sent only when it differs from the last one."""
        if self._limit != seconds:
            milliseconds = str(max(int(seconds * 1000), 1))
            await self.execute(
                "select set_config('statement_timeout', $1, false)", milliseconds, timeout=CONNECT_SECONDS
            )
            self._limit = seconds

    async def restore(self) -> None:
        """Undo everything a stranger's function may have left behind."""
        await self.execute(FULL_RESET, timeout=CONTROL_SECONDS)
        self._limit = None


async def connect(url: str, duty: str, **settings: str) -> Connection:
    """One connection outside the pools, with the settings every connection has."""
    connection = await asyncpg.connect(
        url, timeout=CONNECT_SECONDS, connection_class=Connection, server_settings=_settings(duty, **settings)
    )
    assert isinstance(connection, Connection)
    return connection


def _settings(duty: str, **more: str) -> dict[str, str]:
    # client_connection_check_interval ends the statement of a client that is gone; without it, it runs on and commits.
    return {
        "application_name": f"worker {duty}",
        "client_min_messages": "warning",
        "default_transaction_isolation": "read committed",
        "client_connection_check_interval": "1000",
        **more,
    }


async def register(connection: Connection, me: int, duty: str) -> None:
    """Enter the connection's (pid, backend_start) under this process."""
    row = await connection.fetchrow("select * from worker.register_backend($1, $2)", me, duty, timeout=CONTROL_SECONDS)
    assert row is not None
    connection.backend_start = row["backend_start"]


class Database:
    """The two pools of one process.

    Args:
        url: for control connections.
        steps_url: for step connections; another one where `url` is a pooler.
        steps: size of the step pool.
        search_path: where unqualified function names resolve in steps.
    """

    def __init__(self, url: str, steps_url: str, steps: int, search_path: str) -> None:
        self._url = url
        self._steps_url = steps_url
        self._steps = steps
        self._search_path = search_path
        self.control: asyncpg.Pool[asyncpg.Record]
        self.steps: asyncpg.Pool[asyncpg.Record]

    async def open(self, me: int) -> None:
        """Open both pools under process `me`; they connect when they are first used."""
        self.control = await self._pool(
            self._url, "control", CONTROL_CONNECTIONS, me, command_timeout=CONTROL_SECONDS, statement_timeout="30s"
        )
        self.steps = await self._pool(
            self._steps_url, "step", self._steps, me, reset=Connection.restore, search_path=self._search_path
        )

    async def close(self) -> None:
        """Close both pools, by force when they do not close by themselves."""
        for pool in (self.control, self.steps):
            try:
                async with asyncio.timeout(5):
                    await pool.close()
            except DATABASE_ERRORS:
                pool.terminate()

    async def _pool(
        self,
        url: str,
        duty: str,
        size: int,
        me: int,
        *,
        command_timeout: float | None = None,
        reset: Callable[[Any], Awaitable[None]] | None = None,
        **settings: str,
    ) -> "asyncpg.Pool[asyncpg.Record]":
        async def enter(connection: Any) -> None:
            await register(connection, me, duty)
            if reset is not None:
                await connection.execute(INTACT, timeout=CONTROL_SECONDS)

        pool = await asyncpg.create_pool(
            url,
            min_size=0,  # a floor would be restored with a traceback in the log while the database is away
            max_size=size,
            timeout=CONNECT_SECONDS,
            command_timeout=command_timeout,
            connection_class=Connection,
            init=enter,
            reset=reset,
            server_settings=_settings(duty, **settings),
        )
        assert pool is not None
        return pool


@asynccontextmanager
async def borrowed(pool: "asyncpg.Pool[asyncpg.Record]", seconds: float = ACQUIRE_SECONDS) -> AsyncIterator[Any]:
    """A connection of a pool; waiting for it has a deadline."""
    connection = await pool.acquire(timeout=seconds)
    try:
        yield connection
    finally:
        # A release that is itself cancelled would leave the connection lent for ever. One that fails has ended the
        # connection, which is no news about the work that was done on it.
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await asyncio.shield(pool.release(connection, timeout=RELEASE_SECONDS))


def persistently(seconds: float = PERSIST_SECONDS) -> tenacity.AsyncRetrying:
    """Repeat a call over errors that pass, for some seconds: `async for attempt in persistently(): with attempt: …`"""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=1),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )


async def wait_until_up(url: str, seconds: float | None = None) -> None:
    """Wait, with backoff and a line in the log, until the database answers.

    Raises:
        DatabaseUnreachable: refused for good (wrong password, no such database), or `seconds` passed.
    """
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5 if seconds is None else 1),
        # Before, not after: the last error is what a person wants to read.
        stop=tenacity.stop_before_delay(seconds) if seconds is not None else tenacity.stop_never,
        before_sleep=_say_waiting,
        reraise=True,
    )
    try:
        async for attempt in retrying:
            with attempt:
                connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
                await connection.close(timeout=CONTROL_SECONDS)
    except DATABASE_ERRORS as error:
        raise DatabaseUnreachable(f"the database does not let us in: {type(error).__name__}: {error}") from None


def _say_waiting(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    _log.warning("database.waiting", error=f"{type(error).__name__}: {error}", again_in=round(pause, 2))
