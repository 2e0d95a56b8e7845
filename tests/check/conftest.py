"""A server that is set as one should be, which the one of the other tests is not: it forgets on purpose.

What lasts a session and stands upon the server is defined anew here: a fixture of tests/conftest.py would be made once,
upon whichever server came first.
"""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.check.ward import JOBS, Ward
from tests.cli.support import Cli
from tests.conftest import Given, served
from tests.heart import write_config
from worker.embedded import Embedded

SETTINGS = {"max_prepared_transactions": "5", "max_connections": "60", "autovacuum_naptime": "1h"}
ROLES = ("anon", "authenticated", "authenticator")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Embedded | Given]:
    """The server of these tests."""
    yield from served(SETTINGS)


@pytest.fixture(scope="session")
async def maintenance(cluster: Embedded | Given) -> AsyncIterator[asyncpg.Connection]:
    """The connection that makes and drops the tests' databases."""
    connection = await asyncpg.connect(cluster.dsn())
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def template(
    cluster: Embedded | Given, maintenance: asyncpg.Connection, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """A database with the schema and all that these tests declare, to be cloned."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name}")
    folder = tmp_path_factory.mktemp("template")
    cli = Cli(folder, cluster.dsn(name))
    write_config(folder, JOBS)
    answer = await cli("migrate")
    assert answer.code == 0, answer.err
    yield name
    await maintenance.execute(f"drop database {name} with (force)")


@pytest.fixture
async def dsn(cluster: Embedded | Given, maintenance: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """The address of a fresh database with the schema in it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name} template {template} strategy file_copy")
    yield cluster.dsn(name)
    await maintenance.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
async def login(cluster: Embedded | Given, maintenance: asyncpg.Connection, template: str) -> AsyncIterator[str]:
    """A login that is the daemon's and no more; and roles that a hosting platform has."""
    if isinstance(cluster, Given):
        pytest.skip("roles and settings of a whole server are changed: for our own alone")
    name = "watchman"
    await maintenance.execute(f"create role {name} login in role worker_run")
    for role in ROLES:
        await maintenance.execute(f"create role {role}")
    yield name
    for role in (name, *ROLES):
        await maintenance.execute(f"drop role {role}")


@pytest.fixture
async def ward(dsn: str, login: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ward]:
    """A healthy installation, to be broken."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(Ward.FUNCTIONS)
    ward = Ward(tmp_path, dsn, login, connection, monkeypatch)
    yield ward
    await ward.leave()
