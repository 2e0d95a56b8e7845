"""The way to a database: its address, and what lies between us and the server.

A direct way takes every setting when it connects. A pooler in session mode refuses those, but keeps a session, so they
are set afterwards. A pooler in transaction mode lends another server connection to each transaction: whatever is set,
prepared, locked or listened to there is the next stranger's, so nothing of that kind is ever done on such a way.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

CONNECT_SECONDS = 10.0
# A busy pooler may lend each of two clients the same connection again and again, as they take turns with the others.
ROUNDS = 20
PAUSE = 0.005

# client_connection_check_interval ends the statement of a client that is gone; without it, it runs on and commits. The
# keepalives let the server see within 11 s that our host has vanished: it ends the session, and the others see that.
_SETTINGS = {
    "client_min_messages": "warning",
    "default_transaction_isolation": "read committed",
    "client_connection_check_interval": "1000",
}
_KEEPALIVES = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}


class Pooler(StrEnum):
    """What a connection goes through before it reaches the server."""

    NONE = "none"
    SESSION = "session"
    TRANSACTION = "transaction"


@dataclass(frozen=True, slots=True)
class Way:
    """An address and what lies on the way there."""

    url: str = field(repr=False)
    pooler: Pooler = Pooler.NONE

    @property
    def keeps(self) -> bool:
        """Whether a session outlives its transactions."""
        return self.pooler is not Pooler.TRANSACTION

    def arguments(self, duty: str, settings: Mapping[str, str]) -> dict[str, Any]:
        """What `asyncpg.connect` is given for a connection with this duty."""
        given: dict[str, Any] = {"dsn": self.url, "timeout": CONNECT_SECONDS, "server_settings": _named(duty)}
        if self.pooler is Pooler.NONE:
            given["server_settings"] |= {**_SETTINGS, **_KEEPALIVES, **settings}
        if not self.keeps:
            given["statement_cache_size"] = 0
        if _several(self.url):
            given["target_session_attrs"] = "read-write"  # of a pair the one that is not the standby
        return given

    def afterwards(self, settings: Mapping[str, str]) -> dict[str, str]:
        """What is to be set on a connection once it is there."""
        return {**_SETTINGS, **settings} if self.pooler is Pooler.SESSION else {}


def as_way(address: "Way | str") -> Way:
    """An address that nothing is known about is taken for a direct one."""
    return address if isinstance(address, Way) else Way(address)


async def explore(url: str) -> Way:
    """Find out what lies between us and the server.

    A pooler gives its clients keys of its own to cancel by, so the pid of the handshake is no backend's. Two clients
    have two backends as long as each keeps its session; in transaction mode they share them.
    """
    async with AsyncExitStack() as ending:
        one = await _visit(ending, url)
        mine = await _backend(one)
        if mine == one.get_server_pid():
            return Way(url)
        other = await _visit(ending, url)
        theirs = await _backend(other)
        for _ in range(ROUNDS):
            if theirs == mine or await _backend(one) != mine or await _backend(other) != theirs:
                return Way(url, Pooler.TRANSACTION)
            await asyncio.sleep(random.uniform(0, PAUSE))
        return Way(url, Pooler.SESSION)


async def _visit(ending: AsyncExitStack, url: str) -> asyncpg.Connection:
    # Nothing but its name: a pooler refuses other settings.
    given = Way(url, Pooler.TRANSACTION).arguments("start", {})
    connection: asyncpg.Connection = await asyncpg.connect(**given, command_timeout=CONNECT_SECONDS)
    ending.push_async_callback(connection.close, timeout=1)
    return connection


async def _backend(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("select pg_catalog.pg_backend_pid()")
    return found


def _named(duty: str) -> dict[str, str]:
    return {"application_name": f"worker {duty}"}


def _several(url: str) -> bool:
    """Whether an address names more than one server, and does not say which of them is wanted."""
    parts = urlsplit(url)
    named = parse_qs(parts.query)
    hosts = parts.netloc.rpartition("@")[2] or named.get("host", [""])[0]
    return "," in hosts and "target_session_attrs" not in named
