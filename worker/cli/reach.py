"""What a verb needs before it can do anything: the configuration, and a database that answers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import structlog

from worker import log, migrations
from worker.config import Config, load, secret_values
from worker.database import connect, wait_until_up
from worker.errors import ConfigError, DatabaseUnreachable

REACH_SECONDS = 10.0

T = TypeVar("T")


def configured(path: Path, *, daemon: bool = False) -> Config:
    """The configuration, its secrets known to the log and its warnings told; `daemon` logs, other verbs just say."""
    log.configure(level="info" if daemon else "error")
    config = load(path)
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
    url = chosen.get_secret_value()
    try:
        urlsplit(url).port  # noqa: B018 - raises, with a piece of the password in its message, hence "from None"
    except ValueError:
        raise ConfigError(
            [f"{config.path}: database.url: not an address: percent-encode / # ? @ : in the password"]
        ) from None
    return url


async def answering(url: str, seconds: float = REACH_SECONDS) -> None:
    """Wait a while for a database that starts; DatabaseUnreachable after that."""
    try:
        async with asyncio.timeout(seconds + 1):
            await wait_until_up(url, seconds)
    except TimeoutError:
        raise DatabaseUnreachable(f"the database did not answer within {seconds:g} s") from None


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
