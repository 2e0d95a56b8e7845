"""schemathesis against the whole API, with the shipped systems in the database."""

import asyncio
import re
import sys
from pathlib import Path

import asyncpg
import orjson

from tests.jobs import games, stats_database, syncs
from tests.web.site import ALL, KEYS, Standing
from worker.config import Config, load

# A payload may be right and yet too large, an instant beyond the year 9000: that is the database's to say.
SETTINGS = """
[[operations]]
include-path-regex = "^/(api/v1/jobs|api/admin/enqueue-stats-job|api/sync/.*|sync-games/.*)$"
checks.positive_data_acceptance.enabled = false
"""
GENERATED = re.compile(r"([\d,]+) generated")


async def installed(folder: Path, dsn: str, connection: asyncpg.Connection) -> Config:
    """A configuration with every system declared, and their SQL in the database."""
    syncs_file = syncs.configure(folder)
    await syncs.install(connection, dsn, syncs_file)
    await stats_database.install(connection)
    await games.install(connection)
    file = folder / "fuzzed.toml"
    file.write_text(
        f'{syncs_file.read_text(encoding="utf-8")}\n[job.work]\npython = "tests.sample_jobs:done"\n'
        '[job.stats_update]\nunique_key = "stats"\npython = "tests.sample_jobs:done"\n'
        '[job.sync_games]\nunique_key = "{platform}"\nunique_while = "active"\npython = "tests.sample_jobs:done"\n'
        '[schedule.nightly]\ncron = "@daily"\njob = "work"\n'
        f'[http]\nlisten = "127.0.0.1:0"\n{KEYS}',
        encoding="utf-8",
    )
    config = load(file, {"DATABASE_URL": dsn})
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(config.declarations()).decode())
    timed = orjson.dumps(config.timed()).decode()
    await connection.fetch("select * from worker.declare_schedules($1::jsonb, $2)", timed, list(config.job))
    return config


def patient(side: Standing) -> None:
    """Wrong keys are not counted: a part of what is asked comes with some."""
    side.web._site.application.state.tries.wrong = lambda address: None


async def fuzz(port: int, folder: Path, *options: str) -> tuple[int, int, str]:
    """Exit code (0: no 500 and no answer that is not described), test cases, and what schemathesis said."""
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS, encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(settings), "run",
        f"http://127.0.0.1:{port}/openapi.json", "-H", f"Authorization: Bearer {ALL}",
        "--exclude-path", "/api/v1/events", "--generation-allow-x00", "false", "--no-color",
        "--suppress-health-check", "all", "--generation-database", ":memory:", "--request-timeout", "20", *options,
    ]  # fmt: skip
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT, cwd=folder)
    try:
        said = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
    found = GENERATED.search(said)
    return process.returncode or 0, int(found[1].replace(",", "")) if found else 0, said
