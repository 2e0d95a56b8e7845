"""A real Prometheus over real daemons and a real exporter: the dashboard's queries, and the alert after a kill -9.

Every interval is divided by twenty, of the scrapes and rules as of the processes; WORKER_TEST_NIGHTLY=1 also takes the
two minutes at their full length.
"""

import asyncio
import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import asyncpg
import pytest

from deploy.dashboard import ROWS, Panel
from tests.deploy.monitor import DAEMONS, DEADLINE, DIRECT, EXPORTER, Prometheus, prometheus
from tests.deploy.watched import Commands
from tests.heart import enqueue, until

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="no prometheus (Debian: prometheus)"
)

BY = 20
TWO_MINUTES = 120.0
nightly = pytest.mark.skipif("WORKER_TEST_NIGHTLY" not in os.environ, reason="WORKER_TEST_NIGHTLY=1 takes two minutes")
LIVE = "select count(*) = 1 from worker.process where dead_at is null and lease_until > now()"
JOBS = """
[job.greet]
steps = { say = { sql = "say" }, think = { sql = "think", needs = ["say"] } }
gauges = ["think"]
[job.refuse]
python = "tests.web.handlers:refuse"
[job.stumble]
python = "tests.web.handlers:stumble"
retry = { first = "1ms" }
[job.call]
http = "http://127.0.0.1:%(receiver)d/"
[schedule.minutely]
cron = "* * * * *"
job = "greet"
"""
STEPS = """
create function say() returns void language sql as 'select';
create function think() returns integer language sql as 'select 42';
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def commands(stack: ExitStack, folder: Path, dsn: str, by: int = BY) -> Commands:
    made = Commands(folder, dsn, by)
    stack.callback(made.end)
    return made


# The two minutes


@pytest.mark.parametrize("by", [BY, pytest.param(1, marks=[nightly, pytest.mark.timeout(900)])])
async def test_a_killed_daemon_raises_the_alert(
    tmp_path: Path, dsn: str, connection: asyncpg.Connection, stack: ExitStack, by: int
) -> None:
    """Where its port is scraped, and where only an exporter is."""
    given = commands(stack, tmp_path, dsn, by)
    daemon, ports = given.pair()
    reached, unreached = (
        stack.enter_context(prometheus(tmp_path / job, {job: ports[job]}, by)) for job in (DAEMONS, EXPORTER)
    )
    for each in (reached, unreached):
        await each.ready()
        await each.until('worker_processes{state="alive"} == 1', 3 * DEADLINE)
        await each.quiet(3 * DEADLINE)
    assert await connection.fetchval(LIVE)
    daemon.kill()
    # On a busy machine a scaled second is soon gone: there the sum above is what holds, and this is that it fires.
    limit = TWO_MINUTES if by == 1 else DEADLINE
    took = await asyncio.gather(*(each.fires("WorkerNoProcess", limit) for each in (reached, unreached)))
    print(f"intervals / {by}: {took[0]:.1f} s with a port, {took[1]:.1f} s without")
    given.start("run", "--config", str(tmp_path / "worker.toml"))
    for each in (reached, unreached):
        await each.quiet(3 * limit)


# The dashboard


class Receiver(BaseHTTPRequestHandler):
    """Takes every other call."""

    calls = 0

    def do_POST(self) -> None:
        Receiver.calls += 1
        self.send_response(204 if Receiver.calls % 2 else 500)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def receiver(stack: ExitStack) -> int:
    """The port of one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    return server.server_port


async def work(connection: asyncpg.Connection) -> None:
    """A little of everything."""
    for job_type in ("greet", "stumble", "call", "call"):
        await enqueue(connection, job_type)
    await connection.execute("insert into worker.job_queue (job_type) values ('nobody_declares_it')")
    await connection.execute("update worker.schedule set next_at = date_trunc('minute', now())")


def queries(panel: Panel, job: str) -> list[str]:
    """As Grafana would send them."""
    given = {"$job_type": ".*", "$job": job, "$__rate_interval": "10s"}
    found = [expression for expression, _ in panel.queries]
    for name, value in given.items():
        found = [expression.replace(name, value) for expression in found]
    return found


async def empty(server: Prometheus, job: str) -> list[str]:
    """Queries without a number that should have one; none may be an error."""
    found = []
    for panel in (panel for row in ROWS.values() for panel in row):
        for query in queries(panel, job):
            series = await server.query(query)
            if all(math.isnan(float(one["value"][1])) for one in series) and expected(panel, job):
                found.append(f"{panel.title}: {query}")
    return found


def expected(panel: Panel, job: str) -> bool:
    return job == DAEMONS or "Not from an exporter" not in panel.about


async def test_every_panel_has_its_data_and_a_first_failure_is_told(
    tmp_path: Path, dsn: str, connection: asyncpg.Connection, stack: ExitStack
) -> None:
    await connection.execute(STEPS)
    _, ports = commands(stack, tmp_path, dsn).pair(JOBS % {"receiver": receiver(stack)})
    server = stack.enter_context(prometheus(tmp_path / "prometheus", ports, BY))
    await server.ready()
    # Of a series that begins with its first event nobody would see the increase.
    await server.until('count(worker_jobs_finished_total{job_type="refuse",outcome="failed"} == 0) == 2', 2 * DEADLINE)
    await enqueue(connection, "refuse")
    await until(connection, "select count(*) = 1 from worker.schedule where next_at is not null")
    end = time.monotonic() + 3 * DEADLINE
    while missing := [said for job in ports for said in await empty(server, job)]:
        assert time.monotonic() < end, missing
        await work(connection)
        await asyncio.sleep(1)  # a rate needs two scrapes
    await server.until('count(ALERTS{alertname="WorkerFailing",alertstate="firing",job_type="refuse"}) == 2')
    assert [await asyncio.to_thread(faults, port) for port in ports.values()] == ["", ""]


def faults(port: int) -> str:
    """What promtool finds in what is scraped there."""
    with DIRECT.open(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE) as answer:
        command = ["promtool", "check", "metrics"]
        ended = subprocess.run(command, input=answer.read(), capture_output=True, check=False, timeout=60)
    return (ended.stdout + ended.stderr).decode()
