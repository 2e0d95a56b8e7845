"""The two pools of one process, and the errors that pass.

Control connections carry the queue's own calls and are never lent to handlers; step connections run the users'
functions. Where they keep a session, both are registered in the database under this process, so that its statements can
be ended when it dies.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import structlog
import tenacity

from worker import reset
from worker.connection import CALL_SECONDS, CONTROL_SECONDS, Connection, Patience, Told, register
from worker.door import Door, without_tls
from worker.way import Way, as_way

CONTROL_CONNECTIONS = 4
ACQUIRE_SECONDS = 300.0
RELEASE_SECONDS = 5.0  # for the reset, and for a cancelled statement to end
PERSIST_SECONDS = 15.0

# Whatever a call of the database can end with. The internal ones come from a connection that a stop or a restart caught
# in the middle of a message.
DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

# The server of a connection is not the one any more that we want: a standby, or one that stops.
_ELSEWHERE = ("25006", "57P01", "57P02", "57P03")

_PASSING = ("08", "40001", "40P01", "53", "55P03", "57014", "57P0", "25006")

# What the driver says of a connection that is not there any more; the last when it went between two statements of ours.
_GONE = ("closed", "terminated", "closing", "released back to the pool")

_releases: set[asyncio.Future[None]] = set()  # the loop itself holds its tasks weakly

_log = structlog.get_logger()


def is_transient(error: BaseException) -> bool:
    """True for errors of connections, of restarts and of lost races: the same call may work a moment later."""
    if without_tls(error):
        return False
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate:
        return str(sqlstate).startswith(_PASSING)
    if isinstance(error, asyncpg.InterfaceError):
        return any(word in str(error) for word in _GONE)
    return isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError)


class Pool(asyncpg.Pool):
    """A pool whose calls have a deadline even while they wait for a connection, and that drops all connections when one
    of them goes quiet, or finds its server to be another than it was.

    Attributes:
        way: how its connections reach the server.
        door: which makes them.
    """

    way: Way
    door: Door
    _patience: dict[str, Patience]  # by statement, of which there are so many and no more
    _replaced_at = float("-inf")

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        async with self._call(query) as (connection, seconds):
            return str(await connection.execute(query, *args, timeout=timeout or seconds))

    async def fetch(self, query: str, *args: Any, timeout: float | None = None, **more: Any) -> Any:
        async with self._call(query) as (connection, seconds):
            return await connection.fetch(query, *args, timeout=timeout or seconds, **more)

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None, **more: Any) -> Any:
        async with self._call(query) as (connection, seconds):
            return await connection.fetchrow(query, *args, timeout=timeout or seconds, **more)

    async def fetchval(self, query: str, *args: Any, timeout: float | None = None, **more: Any) -> Any:
        async with self._call(query) as (connection, seconds):
            return await connection.fetchval(query, *args, timeout=timeout or seconds, **more)

    @asynccontextmanager
    async def _call(self, query: str) -> AsyncIterator[tuple[Any, float]]:
        # One that hangs keeps claims or verdicts from going on; one that is slow for good must end all the same.
        patience = self._patience.setdefault(query, Patience(CALL_SECONDS, CONTROL_SECONDS))
        async with borrowed(self, CONTROL_SECONDS) as connection:
            try:
                with patience.learning() as seconds:
                    yield connection, seconds
            except TimeoutError as error:  # one connection went quiet, so the others may be dead as well
                with suppress(asyncpg.InterfaceError):  # the driver may have given it up already
                    connection.terminate()
                await self.note(error)
                raise

    async def note(self, error: BaseException) -> None:
        """Of an error on one of its connections: the address may lead to another server by now."""
        sqlstate = getattr(error, "sqlstate", None)
        if sqlstate not in _ELSEWHERE and not isinstance(error, TimeoutError):
            return
        await self.expire_connections()
        if time.monotonic() - self._replaced_at > 1:
            _log.info("pool.replaced", error=type(error).__name__, sqlstate=sqlstate)
        self._replaced_at = time.monotonic()


class Database:
    """The two pools of one process.

    Args:
        way: for control connections.
        steps_way: for step connections; another one where `way` leads through a transaction pooler.
        steps: size of the step pool.
        search_path: where unqualified function names resolve in steps.
    """

    def __init__(self, way: Way | str, steps_way: Way | str, steps: int, search_path: str) -> None:
        self.ways = as_way(way), as_way(steps_way)
        self._steps = steps
        self._search_path = search_path
        self.control: Pool
        self.steps: Pool

    async def open(self, me: int) -> None:
        """Open both pools under process `me`; they connect when they are first used."""
        control, steps = self.ways
        self.control = await _pool(
            control, "control", CONTROL_CONNECTIONS, me, {"statement_timeout": "30s"}, command_timeout=CONTROL_SECONDS
        )
        self.steps = await _pool(steps, "step", self._steps, me, {"search_path": self._search_path}, strangers=True)

    async def close(self) -> None:
        """Close both pools, by force when they do not close by themselves."""
        for pool in (self.control, self.steps):
            try:
                async with asyncio.timeout(5):
                    await pool.close()
            except DATABASE_ERRORS:
                pool.terminate()

    def shut(self, shut: bool) -> None:
        """The lease says that the database does not answer, or that it does again."""
        self.control.door.shut = self.steps.door.shut = shut

    def terminate(self) -> None:
        """End every connection here and now; calls that wait for an answer fail."""
        self.control.terminate()
        self.steps.terminate()


async def _pool(
    way: Way,
    duty: str,
    size: int,
    me: int,
    settings: dict[str, str],
    *,
    command_timeout: float | None = None,
    strangers: bool = False,
) -> Pool:
    async def enter(connection: Any) -> None:
        await connection.prepare_for(way, settings)
        if way.keeps:  # else it is no session of ours: whoever ended it would end a stranger's
            await register(connection, me, duty)
        if strangers and way.keeps:
            await reset.prepare(connection)

    door = Door()
    pool = Pool(
        connect=door.connect,
        min_size=0,  # a floor would be restored with a traceback in the log while the database is away
        max_size=size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        command_timeout=command_timeout,
        init=enter,
        # Our own calls leave nothing behind, so they are not followed by one more.
        reset=Connection.restore if strangers and way.keeps else None if strangers else _as_it_is,
        loop=None,
        connection_class=Connection,
        record_class=asyncpg.Record,
        **way.arguments(duty, settings),
    )
    pool.way, pool.door, pool._patience = way, door, {}
    await pool
    return pool


async def _as_it_is(connection: Any) -> None:
    """Not to be reset."""


@asynccontextmanager
async def borrowed(
    pool: asyncpg.Pool,
    seconds: float = ACQUIRE_SECONDS,
    told: Told | None = None,
    locks: bool = True,
    *,
    later: bool = False,
) -> AsyncIterator[Any]:
    """A connection of a pool; waiting for it has a deadline.

    Args:
        told: called with the kinds of what was left behind on a step connection, when anything was.
        locks: whether advisory locks are looked for, too.
        later: its borrower does not wait for the reset.
    """
    connection: Any = await pool.acquire(timeout=seconds)
    if told is not None:
        connection.lend(told, locks)
    try:
        yield connection
    except asyncpg.PostgresError as error:
        if isinstance(pool, Pool):
            await pool.note(error)
        raise
    finally:
        # A release that is itself cancelled would leave the connection lent for ever.
        release = asyncio.ensure_future(_give_back(pool, connection, told))
        if later:
            _releases.add(release)
            release.add_done_callback(_releases.discard)
        else:
            await asyncio.shield(release)


async def _give_back(pool: "asyncpg.Pool[asyncpg.Record]", connection: Any, told: Told | None) -> None:
    # One that fails has ended the connection, which is no news about the work that was done on it.
    with suppress(*DATABASE_ERRORS):
        if told is not None and connection.is_in_transaction():
            told(["transaction"])  # the pool rolls it back before anybody else could see it
        await pool.release(connection, timeout=RELEASE_SECONDS)


def persistently(seconds: float = PERSIST_SECONDS) -> tenacity.AsyncRetrying:
    """Repeat a call over errors that pass, for some seconds: `async for attempt in persistently(): with attempt: …`"""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=1),
        stop=tenacity.stop_after_delay(seconds),
        reraise=True,
    )
