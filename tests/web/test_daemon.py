"""The HTTP side of a real daemon, from outside: ready, scraped, draining, gone."""

import asyncio
import math
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.heart import QUICK, becomes, daemon, enqueue, until
from tests.processes import Daemon, Fleet, fleet
from tests.support import free_port
from tests.web.support import KEY, bearer, digest
from worker.config import load
from worker.web import Web

JOBS = """
[job.echo]
python = "tests.sample_jobs:echo"
[job.hold]
python = "tests.web.handlers:hold"
[job.graph]
retry = { first = "1ms", max_attempts = 1 }
[job.graph.steps]
one = { sql = "one_step" }
bad = { sql = "bad_step" }
"""
STEPS = """
create function one_step() returns void language sql as 'select';
create function bad_step() returns void language plpgsql as $$ begin raise exception 'bad'; end $$;
"""


def write(folder: Path, listen: str, worker: str = QUICK) -> Path:
    path = folder / "worker.toml"
    path.write_text(
        f'environment = "test"\n[worker]\n{worker}\n[http]\nlisten = "{listen}"\n[[http.keys]]\nname = "prometheus"\n'
        f'sha256 = "{digest(KEY)}"\nscopes = ["read"]\n{JOBS}',
        encoding="utf-8",
    )
    return path


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


def asked(port: int, path: str, **headers: str) -> httpx2.Response | None:
    """The answer, or None where nobody listens."""
    try:
        return httpx2.get(f"http://127.0.0.1:{port}{path}", headers=headers, trust_env=False)
    except httpx2.TransportError:
        return None


def code(port: int, path: str, **headers: str) -> int | None:
    answer = asked(port, path, **headers)
    return answer.status_code if answer else None


async def became(port: int, path: str, wanted: int | None) -> None:
    await becomes(lambda: code(port, path) == wanted, 40)


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """Every sample: name and values of its labels → value."""
    answer = asked(port, "/metrics")
    assert answer is not None
    assert answer.status_code == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def started(daemons: Fleet, folder: Path, connection: asyncpg.Connection, **more: str) -> tuple[Daemon, int]:
    await connection.execute(STEPS)
    port = free_port()
    daemon = daemons.start(write(folder, f"127.0.0.1:{port}", **more))
    await became(port, "/readyz", 200)
    return daemon, port


async def test_a_scrape_shows_what_was_done(tmp_path, connection, daemons):
    _, port = await started(daemons, tmp_path, connection)
    for job_type in ("echo", "graph"):
        await enqueue(connection, job_type)
    await connection.execute("insert into worker.job_queue (job_type) values ('nobody_declares_it')")
    await until(connection, "select count(*) = 2 from worker.job_queue where status in ('completed', 'failed')")
    await becomes(lambda: scraped(port).get(("worker_jobs", "other", "pending")) == 1, 40)
    found = scraped(port)
    assert found["worker_jobs_finished_total", "echo", "completed"] == 1
    assert found["worker_jobs_finished_total", "graph", "failed"] == 1
    assert found["worker_job_duration_seconds_count", "graph"] == 1
    assert found["worker_job_wait_seconds_count", "echo"] == 1
    assert [found["worker_step_duration_seconds_count", "graph", step] for step in ("one", "bad")] == [1, 1]
    assert found["worker_database_errors_total", "P0"] == 1
    assert found["worker_claims_total", "jobs"] >= 1
    assert found["worker_claims_total", "empty"] >= 1
    assert (found["worker_slots",], found["worker_running",]) == (50, 0)
    assert found["worker_oldest_due_seconds", "other"] > 0
    assert found["worker_loop_lag_seconds_count",] >= 1
    assert not math.isnan(found["worker_oldest_transaction_seconds",])
    await becomes(lambda: not math.isnan(scraped(port)["worker_listen_roundtrip_seconds",]), 40)
    assert "nobody_declares_it" not in str(found)


async def test_a_scrape_and_a_probe_ask_the_database_nothing(tmp_path, connection, daemons):
    """While the database stands still they are answered all the same."""
    _, port = await started(daemons, tmp_path, connection, worker='poll = "10m"\nlease = "30s"')
    async with connection.transaction():
        await connection.execute("lock table worker.job_queue, worker.job_type in access exclusive mode")
        assert [code(port, path) for path in ("/healthz", "/metrics")] == [200, 200]


async def test_not_ready_while_the_schema_is_another(tmp_path, connection, dsn, monkeypatch):
    monkeypatch.setattr("worker.parts.CHECK_EVERY", 0.2)
    await connection.execute(STEPS)
    config = load(write(tmp_path, f"127.0.0.1:{free_port()}"), {"DATABASE_URL": dsn})
    web = Web.of(config)
    async with (
        daemon(config, web),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", trust_env=False) as http,
    ):

        async def answers(wanted: int) -> None:
            async with asyncio.timeout(40):
                while (await http.get("/readyz")).status_code != wanted:  # noqa: ASYNC110 - another side of the loop
                    await asyncio.sleep(0.02)

        await answers(200)
        await connection.execute("update worker.migration set digest = 'x' where name = 'functions/97_health.sql'")
        await answers(503)
        assert (await http.get("/healthz")).status_code == 200


async def test_draining_is_not_ready_and_yet_alive(tmp_path, connection, daemons):
    daemon, port = await started(daemons, tmp_path, connection, worker='grace = "10m"')
    await enqueue(connection, "hold")
    await until(connection, "select status = 'running' from worker.job_queue")
    daemon.send(signal.SIGTERM)
    await became(port, "/readyz", 503)
    assert [code(port, path) for path in ("/healthz", "/metrics")] == [200, 200]
    daemon.send(signal.SIGTERM)
    assert daemon.ends() == 0
    assert code(port, "/healthz") is None


async def test_alive_and_not_ready_while_the_database_is_waited_for(tmp_path, daemons):
    port = free_port()
    daemon = daemons.start(
        write(tmp_path, f"127.0.0.1:{port}"), dsn=f"postgresql://postgres@/x?host={tmp_path}", wait=False
    )
    await became(port, "/healthz", 200)
    assert code(port, "/readyz") == 503
    daemon.send(signal.SIGTERM)
    assert daemon.ends() == 0


async def test_beyond_loopback_a_key_is_asked_for(tmp_path, connection, daemons):
    await connection.execute(STEPS)
    port = free_port()
    daemons.start(write(tmp_path, f"0.0.0.0:{port}"))
    await becomes(lambda: code(port, "/readyz", **bearer(KEY)) == 200, 40)
    assert [code(port, path) for path in ("/healthz", "/readyz", "/metrics")] == [200, 401, 401]
    assert code(port, "/metrics", **bearer(KEY)) == 200


async def test_the_key_is_not_in_the_log(tmp_path, connection, daemons):
    daemon, port = await started(daemons, tmp_path, connection)
    code(port, f"/metrics?key={KEY}", **bearer(KEY))
    assert KEY not in daemon.said()
    assert digest(KEY) not in daemon.said()


async def test_a_port_that_is_taken_is_one_line_at_the_start(tmp_path, connection, daemons):
    _, port = await started(daemons, tmp_path, connection)
    second = daemons.start(write(tmp_path, f"127.0.0.1:{port}"), wait=False)
    assert second.ends() == 2
    assert f"http.listen: cannot listen on 127.0.0.1:{port}" in second.said()
    assert "Traceback" not in second.said()


async def test_promtool_finds_no_fault(tmp_path, connection, daemons):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    _, port = await started(daemons, tmp_path, connection)
    await enqueue(connection, "graph")
    await until(connection, "select status = 'failed' from worker.job_queue")
    answer = asked(port, "/metrics")
    assert answer is not None
    command = [promtool, "check", "metrics"]
    checked = await asyncio.to_thread(subprocess.run, command, input=answer.content, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
