"""What a verb needs before it can do anything: the configuration, and a database that answers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import asyncpg
import structlog

from worker import log, migrations
from worker.cli.verdict import Unreached
from worker.config import Config, load, load_listener, secret_values
from worker.connection import connect
from worker.errors import ConfigError, DatabaseUnreachable
from worker.waiting import wait_until_up

REACH_SECONDS = 10.0

T = TypeVar("T")


def configured(path: Path, *, daemon: bool = False) -> Config:
    """The configuration, its secrets known to the log and its warnings told; `daemon` logs, other verbs just say."""
    log.configure(level="info" if daemon else "error")
    return _told(load(path), daemon)


def listening(path: Path, listen: str | None) -> Config:
    """The part of the configuration that a process needs which only looks and answers; it logs as a daemon does."""
    log.configure(level="info")
    return _told(load_listener(path, listen=listen), True)


def _told(config: Config, daemon: bool) -> Config:
    log.register_secrets(secret_values(config))
    for warning in config.warnings:
        if daemon:
            structlog.get_logger().warning("config.warning", warning=warning)
        else:
            print(f"worker: warning: {log.safe(warning)}", file=sys.stderr)
    return config


def address(config: Config, *, direct: bool = False) -> str:
    """The database's address; `direct` prefers the one that leads past a pooler."""
    chosen = (direct and config.database.direct_url) or config.database.url
    if chosen is None:
        raise ConfigError([f"{config.path}: no database: set database.url or DATABASE_URL"])
    return chosen.get_secret_value()


async def answering(url: str, seconds: float = REACH_SECONDS) -> None:
    """Wait a while for a database that starts.

    Raises:
        Unreached: it did not, or refuses for good.
    """
    try:
        async with asyncio.timeout(seconds + 1):
            await wait_until_up(url, seconds)
    except (DatabaseUnreachable, TimeoutError) as error:
        reason = error.__context__ if isinstance(error, DatabaseUnreachable) else None
        raise Unreached(server(url), reason or TimeoutError(f"no answer within {seconds:g} s")) from None


def server(url: str) -> str:
    """HOST:PORT/DATABASE of an address, never its user nor its password."""
    parts = urlsplit(url)
    if "@" in parts.path + parts.query + parts.fragment:
        return "database.url"  # a password that is not percent-encoded may stand anywhere
    query = dict(parse_qsl(parts.query))
    place = parts.netloc.rpartition("@")[2] or query.get("host") or "its default host"
    port = "" if parts.netloc.rpartition("@")[2].rpartition("]")[2].count(":") else f":{query.get('port', 5432)}"
    return f"{place}{port}/{parts.path.strip('/') or query.get('dbname') or query.get('database') or ''}"


@asynccontextmanager
async def reached(config: Config) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database whose schema fits this release."""
    url = address(config)
    await answering(url)
    connection = await connect(url, "cli", statement_timeout="60s")
    try:
        await _fitting(connection)
        yield connection
    finally:
        await connection.close(timeout=5)


def go(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on the fast loop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop

    return uvloop.run(work)


async def _fitting(connection: asyncpg.Connection) -> None:
    try:
        await migrations.verify(connection)
    except asyncpg.InsufficientPrivilegeError:
        return  # an application's role may not look; what it then calls says by itself what is missing
