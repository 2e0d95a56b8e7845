"""A backup of the database is one of the queue: what docs/operations.md says about a restore."""

import os
import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.heart import DEADLINE, EVIDENCE, configured, daemon, effects, enqueue, heart, until
from tests.support import ROOT
from worker.embedded import find_prefix
from worker.migrations import migrate

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
[JUMP] = re.findall(r"(?ms)^```sql\n(select setval.*?)^```", PAGE)
DONE = "select count(*) = 2 from worker.job_queue where status = 'completed'"
JOBS = """
[job.work]
arguments = { job_id = "id" }
steps = { first = { sql = "first_step" } }
"""


def run(program: str, *arguments: str) -> None:
    """A program of PostgreSQL's."""
    prefix = find_prefix()
    environment = {**os.environ, "LD_LIBRARY_PATH": str(prefix / "lib")}
    subprocess.run([str(prefix / "bin" / program), *arguments], env=environment, check=True, timeout=60)


@pytest.fixture
async def elsewhere(maintenance: asyncpg.Connection, dsn: str) -> AsyncIterator[str]:
    """The address of an empty database."""
    name = f"restored_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name}")
    yield urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    await maintenance.execute(f"drop database {name} with (force)")


async def test_what_waits_and_what_ran_goes_on_in_the_restored_database(
    tmp_path: Path, dsn: str, connection: asyncpg.Connection, elsewhere: str
) -> None:
    await connection.execute(EVIDENCE)
    async with heart(dsn) as parts:
        running = await enqueue(connection)
        assert (await parts.one()).id == running
        waiting = await enqueue(connection)
        run("pg_dump", "--format=custom", f"--file={tmp_path / 'dump'}", dsn)
    run("pg_restore", "--exit-on-error", f"--dbname={elsewhere}", str(tmp_path / "dump"))
    await migrate(elsewhere)
    restored = await asyncpg.connect(elsewhere)
    try:
        await restored.execute(JUMP)
        assert await enqueue(restored, "undeclared") > waiting + 1_000_000
        async with daemon(configured(tmp_path, elsewhere, JOBS)):
            await until(restored, DONE, seconds=3 * DEADLINE)
        assert await effects(restored) == {(running, "first"): 1, (waiting, "first"): 1}
    finally:
        await restored.close()
