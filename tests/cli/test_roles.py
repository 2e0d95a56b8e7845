"""Each verb works with the role it is meant for, and with no more."""

import uuid

import asyncpg
import pytest

from tests.cli.support import Cli
from tests.conftest import Given
from tests.heart import enqueue
from worker.embedded import Embedded


def become(cli: Cli, role: str) -> None:
    """From now on with that role's rights; asyncpg hands what it does not know on as a setting of the session."""
    cli.dsn += f"{'&' if '?' in cli.dsn else '?'}role={role}"


async def test_reader(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    become(cli, "worker_read")
    assert [(await cli(*verb)).code for verb in (("status",), ("jobs",), ("show", "1"))] == [0, 0, 0]
    refused = [await cli("enqueue", "fine"), await cli("cancel", "1")]
    assert [answer.code for answer in refused] == [2, 2]
    assert all("may not do this" in answer.err for answer in refused)


async def test_application(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")  # somebody else's
    become(cli, "worker_enqueue")
    own = (await cli("enqueue", "fine", "--json")).value["id"]
    assert [job["id"] for job in (await cli("jobs", "--json")).value] == [own]
    assert (await cli("cancel", str(own))).code == 0
    assert (await cli("cancel", "1")).code == 2


async def test_operator(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    become(cli, "worker_operate")
    assert (await cli("cancel", "1")).code == 0


async def test_daemon(cli: Cli, connection: asyncpg.Connection, cluster: Embedded | Given) -> None:
    if isinstance(cluster, Given):
        pytest.skip("a login without a password is for our own server")
    await enqueue(connection, "fine")
    name = f"daemon_{uuid.uuid4().hex[:12]}"  # a login, not `role=`: only then does it see its own sessions' start
    await connection.execute(f"create role {name} login in role worker_run")
    try:
        cli.dsn = cli.dsn.replace("postgres@", f"{name}@", 1)
        answer = await cli.process("drain")
        assert (answer.code, answer.out) == (0, "ran: 1 completed\nnothing is left\n")
        assert (await cli("status")).code == 0
    finally:
        await connection.execute(f"drop role {name}")
