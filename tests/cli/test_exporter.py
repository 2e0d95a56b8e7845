"""`worker exporter` as a process of its own: what it serves, to whom, and what a scrape costs."""

import asyncio
import math
import os
import signal
import sys
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.cli.exporters import FINISHED, JOBS, add
from tests.conftest import SETTINGS
from tests.heart import becomes, declare, enqueue, until, write_config
from tests.processes import fleet
from tests.support import free_port, server_folder
from tests.web.support import KEY, bearer, digest
from worker.embedded import start
from worker.migrations import migrate


@pytest.fixture
async def reader(dsn: str, connection: asyncpg.Connection) -> Any:
    """The address with a login that may read, and nothing else."""
    name = f"reads_{os.urandom(4).hex()}"
    await connection.execute(f"create role {name} login in role worker_read")
    parts = urlsplit(dsn)
    yield urlunsplit(parts._replace(netloc=f"{name}@{parts.netloc.rpartition('@')[2]}"))
    await connection.execute(f"drop role {name}")


async def test_it_serves_what_daemons_did_and_what_is_left(tmp_path, dsn, connection, exporters, reader):
    """From a login that only reads, with none of the secrets that jobs need; of two daemons that are gone."""
    with fleet(tmp_path, dsn) as daemons:
        config = tmp_path / "daemon.toml"
        text = JOBS.partition("[job.call]")[0] + '[schedule.nightly]\ncron = "@daily"\njob = "echo"'
        write_config(tmp_path, text).rename(config)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "tests.processes.command",
                lambda config: [sys.executable, "-m", "worker", "run", "--config", str(config)],
            )
            for _ in range(2):
                daemon = daemons.start(config)
                await enqueue(connection, "echo")
                await until(connection, "select bool_and(status = 'completed') from worker.job_queue")
                daemon.send(signal.SIGTERM)
                assert daemon.ends() == 0
    await enqueue(connection, "echo", scheduled_at=None)
    await connection.execute(
        "insert into worker.job_queue (job_type) select 'stranger_' || n from generate_series(1, 9) n"
    )
    exporter = exporters(address=reader)
    shown = await exporter.shows("worker_exporter_database_up")
    assert shown[FINISHED, "echo", "completed"] == 2
    assert shown[FINISHED, "echo", "failed"] == 0
    assert (
        shown["worker_job_wait_seconds_count", "echo"]
        == shown["worker_job_duration_seconds_bucket", "echo", "+Inf"]
        == 2
    )
    assert (shown["worker_jobs", "echo", "pending"], shown["worker_jobs", "other", "pending"]) == (1, 9)
    assert shown["worker_oldest_due_seconds", "echo"] > 0
    assert (shown["worker_processes", "alive"], shown["worker_rescues_total",]) == (0, 0)
    assert shown["worker_schedule_late_seconds", "nightly"] == 0
    assert shown["worker_table_bytes", "job_queue"] > 0
    assert shown["worker_claims_total", "jobs"] >= 2
    assert shown["worker_exporter_series_left_out",] == 0
    assert "stranger" not in str(shown)
    assert exporter.ask("/readyz").status_code == 200
    exporter.send(signal.SIGTERM)
    assert exporter.ends() == 0
    assert "NOBODY_SETS_IT" not in exporter.said()


async def test_a_scrape_costs_no_query(connection, exporters):
    """A hundred ask while every table that it reads stands still; its one session has said nothing since its sample."""
    exporter = exporters(every=3600)
    await exporter.shows("worker_exporter_database_up")
    asked = "select pid, query_start from pg_stat_activity where application_name = 'worker exporter'"
    before = await connection.fetch(asked)
    async with connection.transaction():
        await connection.execute("lock table worker.tally, worker.job_type, worker.job_queue in access exclusive mode")
        answers = await asyncio.gather(*(asyncio.to_thread(exporter.ask) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert await connection.fetch(asked) == before
    assert len(before) == 1


async def test_without_the_database_it_says_so_from_memory(tmp_path, monkeypatch, exporters):
    """A crash of the server takes the totals along; they begin again, and nobody sees a jump."""
    with server_folder(brief=True) as folder:
        server = start(folder, settings=SETTINGS | {"synchronous_commit": "on"}, die_with_parent=True)
        try:
            await migrate(server.dsn())
            for told in (700.0, 5.0):
                connection = await asyncpg.connect(server.dsn())
                await declare(connection, {"name": "echo"})
                await add(connection, (FINISHED, {"job_type": "echo", "outcome": "completed"}, told))
                await connection.close()
                if told == 700:
                    exporter = exporters(address=server.dsn())
                await exporter.shows(FINISHED, "echo", "completed", value=told)
                await asyncio.to_thread(server.stop, "immediate")
                shown = await exporter.shows("worker_exporter_database_up", value=0.0)
                assert shown[FINISHED, "echo", "completed"] == told
                assert math.isnan(shown["worker_jobs", "echo", "pending"])
                assert shown["worker_exporter_sample_age_seconds",] >= 0
                assert [exporter.ask(path).status_code for path in ("/healthz", "/readyz")] == [200, 503]
                if told == 700:
                    server = start(folder, settings=SETTINGS, die_with_parent=True)
        finally:
            server.stop("immediate")
    assert exporter.said().count("duty.failed") == 2  # once for each time that it went away
    assert exporter.process.poll() is None


@pytest.mark.parametrize(
    ("http", "options", "said"),
    [
        ("", ("--listen", "0.0.0.0:{port}"), "beyond loopback only with keys"),
        ('[http]\nlisten = "0.0.0.0:{port}"\n', (), "beyond loopback only with keys"),
        ("", ("--listen", "nonsense"), "http.listen"),
        ('[http]\nlistne = "127.0.0.1:1"\nlisten = 5\n', (), "http.listen"),
    ],
)
async def test_the_listeners_rules_hold(exporters, http, options, said):
    exporter = exporters(http, *(each.format(port=free_port()) for each in options))
    assert exporter.ends() == 2
    assert said in exporter.said()


async def test_beyond_loopback_a_key_is_asked_for(exporters):
    keys = f'[[http.keys]]\nname = "p"\nsha256 = "{digest(KEY)}"\nscopes = ["read"]\n'
    exporter = exporters('[http]\nlisten = "0.0.0.0:{port}"\n' + keys)
    await becomes(lambda: (answer := exporter.ask("/healthz")) is not None and answer.status_code == 200, 40)
    await becomes(lambda: exporter.ask("/readyz", **bearer(KEY)).status_code == 200, 40)
    assert [exporter.ask(path).status_code for path in ("/readyz", "/metrics", "/admin", "/api/v1/jobs")] == [401] * 4
    assert exporter.scraped(**bearer(KEY))["worker_exporter_database_up",] == 1
    assert digest(KEY) not in exporter.said()


@pytest.mark.parametrize(("statement", "code"), [("drop schema worker cascade", 3), (None, 2)])
async def test_a_database_that_will_never_do_is_told_at_the_start(connection, dsn, exporters, statement, code):
    if statement:
        await connection.execute(statement)
    exporter = exporters(address=dsn if statement else dsn.replace("/test_", "/nobody_made_it_"))
    assert exporter.ends() == code
    assert "Traceback" not in exporter.said()


async def test_a_database_that_is_not_there_yet_is_waited_for(tmp_path, exporters):
    exporter = exporters(address=f"postgresql://postgres@/x?host={tmp_path}")
    await exporter.shows("worker_exporter_database_up", value=0.0)
    assert exporter.ask("/readyz").status_code == 503
    assert math.isnan(exporter.scraped()["worker_exporter_sample_age_seconds",])
    exporter.send(signal.SIGTERM)
    assert exporter.ends() == 0
