"""What docs/systems/auto-sync.md gives people to run does run, and names variables and settings that exist."""

import re
import subprocess
from pathlib import Path

import asyncpg
import orjson

from tests.heart import configured, write_config
from tests.jobs.crews import DECLARED, JOBS, PAGE, TYPES, begun, install, jobs
from tests.support import ROOT
from worker.demo import carrier
from worker.outcome import Completed
from worker.testing import bench

QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))


async def test_the_declared_types_and_queries_of_the_page_run(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    config = configured(tmp_path, dsn, DECLARED)
    assert config.warnings == ()
    await install(connection)
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(config.declarations()).decode())
    sync = await begun(connection)
    await connection.execute("select * from auto_sync.begin_reminder($1, 0)", sync)
    for query in QUERIES:
        async with connection.transaction():
            await connection.execute(query)
    assert len(QUERIES) >= 10
    faults = "select said from auto_sync.check() where level = 'fault'"
    assert await connection.fetch(faults) == []


async def test_the_mend_is_a_job_by_the_clock(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
    await install(connection)
    sync = await begun(connection)
    await connection.execute("delete from worker.job_queue")
    async with bench(dsn, write_config(tmp_path, JOBS)) as at:
        assert at.config.schedule["auto_sync_mend"].job == "auto_sync_mend"
        assert isinstance(await at.run(await at.enqueue("auto_sync_mend")), Completed)
    assert {job["job_type"] for job in await jobs(connection, sync)} == set(TYPES) - {"pause_check_48h"}


def test_the_page_names_every_variable_and_no_other() -> None:
    source = (ROOT / "worker" / "jobs" / "sms.py").read_text(encoding="utf-8")
    read = set(re.findall(r"""["'](TWILIO_[A-Z_]+)["']""", source))
    assert set(re.findall(r"^\| `(TWILIO_[A-Z_]+)`", PAGE, re.MULTILINE)) == read
    assert set(carrier.Carrier().environment()) <= read


def test_the_files_that_the_page_applies_are_there() -> None:
    for name in re.findall(r"sql/[\w/]+\.sql", SHELL):
        assert (ROOT / name).is_file()
    assert subprocess.run(["bash", "-n"], input=SHELL, text=True, check=False).returncode == 0
