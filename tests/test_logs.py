"""docs/logs.md names every event there is; those of the contract are written by a real daemon, as lines of JSON."""

import ast
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.heart import DEADLINE, QUICK, enqueue, until, write_config
from tests.processes import Daemon, Fleet, fleet
from tests.support import ROOT
from tests.test_upkeep import stranded

PAGE = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
LEVELS = {"debug", "info", "warning", "error"}
JOBS = """
[job.echo]
python = "tests.sample_jobs:echo"
[job.told]
python = "tests.sample_jobs:echo"
log = "each"
[job.refuse]
python = "tests.web.handlers:refuse"
[job.stumble]
python = "tests.web.handlers:stumble"
retry = { first = "1ms" }
[job.snooze]
python = "tests.web.handlers:snooze"
[job.block]
python = "tests.web.handlers:block"
[job.lose]
python = "tests.web.handlers:lose"
[job.graph.steps]
one = { sql = "one_step" }
"""
BUSY = """
[job.hold]
python = "tests.web.handlers:hold"
[job.dead]
http = "http://127.0.0.1:1/"
retry = { max_attempts = 1 }
"""
STEP = "create function one_step() returns void language sql as 'select'"


def written() -> Iterator[tuple[str, str]]:
    """(event, level) of every line that the source may write."""
    for path in sorted((ROOT / "worker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS
                and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
                and re.fullmatch(r"[a-z_]+\.[a-z_]+", node.args[0].value)
            ):  # fmt: skip
                yield node.args[0].value, node.func.attr


def documented() -> set[tuple[str, str]]:
    """(event, level) of the page's tables."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z, ]+) \|", PAGE, re.MULTILINE)
    found = {(event, level.strip()) for event, levels in rows for level in levels.split(",")}
    return {(event, level) for event, level in found if level in LEVELS}  # the others are reasons


def test_the_page_names_every_event_with_its_level() -> None:
    assert documented() == set(written())


# Those of the contract, which every release keeps.
CONTRACT = {
    "service.started", "service.profile", "job.finished", "jobs.finished", "job.retried", "job.snoozed", "job.rescued",
    "job.lost_claim", "step.finished", "outbound.failed", "duty.failed", "service.draining", "service.stopped",
}  # fmt: skip
OF_A_JOB = {"job.finished", "job.retried", "job.snoozed", "job.rescued", "job.lost_claim", "outbound.failed"}


def reasoned() -> set[str]:
    """The events that the page gives a reason for: they are at info, and not of the contract."""
    return set(re.findall(r"^\| `([a-z_.]+)` \| (?!debug|info|warning|error)", PAGE, re.MULTILINE))


def test_what_is_at_info_is_of_the_contract_or_has_its_reason_on_the_page() -> None:
    assert {event for event, level in written() if level == "info"} - CONTRACT == reasoned()


class Lines:
    """What a daemon wrote, by event."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def of(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first line of this event with these fields, waited for."""
        end = time.monotonic() + DEADLINE
        while not (found := [line for line in self.all() if {"event": event, **fields}.items() <= line.items()]):
            assert time.monotonic() < end, f"no {event} with {fields} in:\n{self._daemon.said()}"
            time.sleep(0.02)
        return found[0]

    def all(self) -> Iterator[dict[str, Any]]:
        whole, _, _ = self._daemon.said().rpartition("\n")
        return map(json.loads, whole.splitlines())


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


async def test_every_event_of_a_job_is_written(tmp_path, connection, daemons):
    await connection.execute(STEP)
    await stranded(connection)
    daemon = daemons.start(write_config(tmp_path, JOBS, worker=QUICK), options=("--verbose",))
    kinds = ("echo", "told", "refuse", "stumble", "snooze", "block", "lose", "graph")
    ids = {kind: await enqueue(connection, kind, correlation_id=f"c-{kind}") for kind in kinds}
    over = "select status not in ('pending', 'running') from worker.job_queue where id = $1"
    for kind in ("echo", "told", "refuse", "stumble", "block", "graph"):
        await until(connection, over, ids[kind], seconds=40)
    lines = Lines(daemon)

    def of_job(event: str, kind: str, **fields: Any) -> dict[str, Any]:
        line = lines.of(event, job_id=ids[kind], job_type=kind, **fields)
        assert (line["correlation_id"], line["attempt"] >= 0) == (f"c-{kind}", True)
        return line

    of_job("job.finished", "refuse", outcome="failed", level="error")
    of_job("job.finished", "told", outcome="completed", level="info")
    assert "stumbled" in of_job("job.retried", "stumble", level="warning")["error"]
    of_job("job.snoozed", "snooze", level="info", again_in=3600)
    of_job("job.lost_claim", "lose", level="warning")
    of_job("step.finished", "graph", level="debug", step="one", outcome="completed")
    lines.of("job.rescued", job_type="echo", level="warning")
    assert lines.of("jobs.finished", job_type="graph", level="info")["jobs"] == 1
    assert "block" in lines.of("loop.blocked", level="warning")["job_types"]


async def test_every_event_of_the_process_is_written(tmp_path, connection, second, daemons):
    daemon = daemons.start(write_config(tmp_path, '[job.echo]\npython = "tests.sample_jobs:echo"', worker=QUICK))
    lines = Lines(daemon)
    started = lines.of("service.started", level="info", environment="test", types=["echo"])
    assert {"process", "version", "timestamp"} <= started.keys()
    profile = lines.of("service.profile", level="info", pooler="none", step_pooler="none", listener="heard")
    assert profile["server"] == await connection.fetchval("show server_version")
    async with connection.transaction():
        await connection.execute("lock table worker.job_queue in access exclusive mode")
        await second.execute("insert into worker.kept (job_id, enqueued_by) values (0, current_user)")  # to be swept
        lines.of("duty.failed", level="warning", sqlstate="55P03")
    daemon.send(signal.SIGTERM)
    assert daemon.ends() == 0
    lines.of("service.draining", level="info", in_hand=0)
    lines.of("service.stopped", level="info")


async def test_a_busy_life_says_what_is_promised_and_nothing_else(tmp_path, connection, second, daemons):
    """Every outcome, a rescue, a lost claim, a call that fails, a duty that fails, and a drain with a job in hand."""
    await connection.execute(STEP)
    await stranded(connection)
    settings = QUICK.replace('grace = "10s"', 'grace = "100ms"\nlog_slow = "60s"')
    daemon = daemons.start(write_config(tmp_path, JOBS + BUSY, worker=settings))
    kinds = ("echo", "told", "refuse", "stumble", "snooze", "lose", "graph", "dead", "hold")
    ids = {kind: await enqueue(connection, kind, correlation_id=f"c-{kind}") for kind in kinds}
    await connection.executemany("select worker.enqueue($1)", [("echo",)] * 50)
    lines = Lines(daemon)
    for event in sorted(OF_A_JOB):
        lines.of(event)
    async with connection.transaction():
        await connection.execute("lock table worker.job_queue in access exclusive mode")
        await second.execute("insert into worker.kept (job_id, enqueued_by) values (0, current_user)")
        lines.of("duty.failed")
    await until(connection, "select status = 'running' from worker.job_queue where id = $1", ids["hold"])
    echoes = "from worker.job_queue where job_type = 'echo' and "
    await until(connection, f"select not exists (select {echoes} status in ('pending', 'running'))", seconds=40)
    daemon.send(signal.SIGTERM)
    assert daemon.ends() == 0
    said = list(lines.all())
    assert {line["event"] for line in said} - {"step.finished"} >= CONTRACT - {"step.finished"}
    assert {line["event"] for line in said if line["level"] == "info"} - CONTRACT == {"type.declared"}
    assert {line["event"] for line in said} <= {event for event, _ in documented()}
    assert {line["level"] for line in said} == {"info", "warning", "error"}
    for line in said:
        if line["event"] in OF_A_JOB:
            assert {"job_id", "job_type", "attempt", "correlation_id"} <= line.keys()
        assert "payload" not in line
    named = {line["job_id"]: line for line in said if "job_id" in line}
    assert {kind: named[ids[kind]]["correlation_id"] for kind in ("told", "refuse", "dead")} == {
        kind: f"c-{kind}" for kind in ("told", "refuse", "dead")
    }
    # Of fifty quick jobs there is no line each.
    assert len([line for line in said if line["event"] == "job.finished" and line["job_type"] == "echo"]) == 0
    summed = sum(line["jobs"] for line in said if line["event"] == "jobs.finished" and line["job_type"] == "echo")
    assert summed == await connection.fetchval(f"select count(*) {echoes} status = 'completed'") > 50


async def test_nothing_is_said_of_steps_unless_it_is_asked_for(tmp_path, connection, daemons):
    await connection.execute(STEP)
    daemon = daemons.start(write_config(tmp_path, "[job.graph.steps]\none = { sql = 'one_step' }", worker=QUICK))
    await enqueue(connection, "graph")
    daemon.says('"event":"jobs.finished"')
    assert "step.finished" not in daemon.said()
