"""Where a demo happens: a database that was not there before and is not there afterwards."""

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from worker.demo import leftovers
from worker.demo.failure import DemoFailed
from worker.demo.teller import Teller
from worker.embedded import Embedded, default_data_dir
from worker.embedded.postmaster import alive, read
from worker.errors import EmbeddedError
from worker.waiting import wait_until_up

REACH_SECONDS = 10.0
# A demo's data may be lost: it is thrown away anyhow.
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "40"}


@asynccontextmanager
async def place(teller: Teller) -> AsyncIterator[str]:
    """The address of a fresh database: on DATABASE_URL's server, or on a private one that is stopped at the end."""
    if url := os.environ.get("DATABASE_URL"):
        async with _on_server(url, teller) as made:
            yield made
        return
    with _embedded(teller) as made:
        yield made


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for what the demo does itself."""
    connection = await asyncpg.connect(url, timeout=REACH_SECONDS, command_timeout=60)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@asynccontextmanager
async def _on_server(url: str, teller: Teller) -> AsyncIterator[str]:
    name = f"worker_demo_{uuid.uuid4().hex[:12]}"
    await wait_until_up(url, REACH_SECONDS)
    await _maintain(url, f"create database {name}")
    teller.line(f"made the database {name} on the server of DATABASE_URL; it is dropped at the end,")
    teller.line("only the roles worker_* stay, because roles belong to the whole server")
    try:
        yield _named(url, name)
    finally:
        await _maintain(url, f"drop database if exists {name} with (force)")
        teller.line(f"dropped the database {name}")


@contextmanager
def _embedded(teller: Teller) -> Iterator[str]:
    home = default_data_dir().parent
    _sweep(home)
    folder = home / f"{leftovers.mine()}{uuid.uuid4().hex[:8]}"
    server: Embedded | None = None
    try:
        server = Embedded.start(folder, settings=SETTINGS, die_with_parent=True, progress=teller.line)
        teller.line(
            "this private server is for demos and tests: no passwords, no TLS, no TCP; never use it for real data"
        )
        yield server.dsn()
    finally:
        if server:
            server.stop()
            teller.line("stopped the private server")
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(home: Path) -> None:
    """Remove what a killed demo left; its server died with it, or is ended here where the system cannot do that."""
    for folder in leftovers.of_the_dead(home):
        with suppress(OSError, EmbeddedError):
            _end(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _end(folder: Path) -> None:
    found = read(folder / "cluster")
    if found and alive(found.pid) and found.answers():
        Embedded.start(folder).stop("immediate")


async def _maintain(url: str, statement: str) -> None:
    """CREATE and DROP DATABASE take no parameters; the names are made here, of hexadecimal digits."""
    connection = await asyncpg.connect(url, timeout=REACH_SECONDS)
    try:
        await connection.execute(statement, timeout=60)
    except asyncpg.InsufficientPrivilegeError as error:
        raise DemoFailed(
            f"{error}: the demo needs a user of DATABASE_URL that may create databases and roles"
        ) from None
    finally:
        await connection.close(timeout=5)


def _named(url: str, database: str) -> str:
    """The same server, another database. Put together by hand: urlunsplit loses the slashes of an empty host."""
    parts = urlsplit(url)
    rest = [(key, value) for key, value in parse_qsl(parts.query) if key not in ("dbname", "database")]
    return f"{parts.scheme}://{parts.netloc}/{database}{'?' + urlencode(rest) if rest else ''}"
