"""What docs/systems/sync.md gives people to run does run, and its settings are the handler's."""

import re
from dataclasses import fields
from pathlib import Path

import asyncpg

from tests.jobs.syncs import PAGE, configure, connect, install, start
from tests.support import ROOT
from worker.config import load
from worker.jobs.sync import Terms

QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


async def test_the_queries_of_the_page_run(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
    await install(connection, dsn, configure(tmp_path))
    await connect(connection, "bob")
    sync = await start(connection, "bob")
    await connection.execute("select sync.record_alert(jsonb_build_object('id', $1::bigint), 'ProviderDown: x')", sync)
    transaction = connection.transaction()
    await transaction.start()
    for query in QUERIES:
        await connection.execute(re.sub(r"(?m)^(begin|commit);$", "", query))
    await transaction.rollback()
    assert len(QUERIES) >= 8
    assert await connection.fetchval("select count(*) from sync.syncs") == 1


def test_what_the_page_writes_into_worker_toml_is_right(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('environment = "test"\n[database]\nurl = "$DATABASE_URL"\n' + "\n".join(TOML), encoding="utf-8")
    environ = {"DATABASE_URL": "postgresql://localhost/x", "ALERT_URL": "https://chat.example/hook"}
    loaded = load(file, environ)
    assert set(loaded.job) == {"sync", "sync_detect", "sync_alert", "sync_all", "sync_cleanup", "sync_alert_post"}
    assert set(loaded.schedule) == {"hourly_sync", "nightly_sync_cleanup"}
    extra = re.findall(r"`((?:rate|backlog) = \{[^`]*\})`", PAGE)
    assert len(extra) == 2
    file.write_text(file.read_text().replace("[job.sync]\n", "[job.sync]\n" + "\n".join(extra) + "\n"))
    assert load(file, environ).job["sync"].backlog is not None


def test_every_setting_is_on_the_page_with_its_default() -> None:
    table = PAGE.split("## Settings")[1].split("\n| elsewhere")[0]
    told = {}
    for names, values in re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", table, re.MULTILINE):
        told |= zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True)
    defaults = {each.name: getattr(Terms(), each.name) for each in fields(Terms)}
    assert told == {name: f"{value:g}" if isinstance(value, float) else str(value or "none")
                    for name, value in defaults.items()} | {"providers": "none"}  # fmt: skip


async def test_every_code_and_sqlstate_is_on_the_page(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
    await install(connection, dsn, configure(tmp_path))
    codes = {row[0] for row in await connection.fetch("select code from sync.error_codes")}
    assert codes == set(re.findall(r"^\| ([A-Z_]+) \|", PAGE, re.MULTILINE)) - {"SQLSTATE"}
    source = "\n".join(path.read_text() for path in (ROOT / "sql" / "jobs" / "sync").glob("*.sql"))
    assert set(re.findall(r"SY\d{3}", source)) == set(re.findall(r"^\| (SY\d{3}) \|", PAGE, re.MULTILINE))


async def test_every_function_that_the_page_names_is_there(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path
) -> None:
    await install(connection, dsn, configure(tmp_path))
    functions = await connection.fetch("select proname from pg_proc where pronamespace = 'sync'::regnamespace")
    relations = await connection.fetch("select relname from pg_class where relnamespace = 'sync'::regnamespace")
    there = {row[0] for row in [*functions, *relations]}
    named = {name for name in re.findall(r"\bsync\.(\w+)", PAGE) if name not in ("not_detected", "md", "sql", "toml")}
    assert named - there == set()
