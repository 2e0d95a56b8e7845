"""`worker demo`, end to end as a real process."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import Given
from tests.support import ROOT
from worker.demo.daemon import with_webhook
from worker.demo.failure import DemoFailed
from worker.embedded import Embedded, default_data_dir

SECONDS = 110
STEPS = tomllib.loads((ROOT / "worker.toml").read_text())["job"]["stats_update"]["steps"]
TAGS = sorted(tag for step in STEPS.values() for tag in step["tags"])


def leftovers(pid: int) -> list[Path]:
    """Folders that a demo left behind."""
    homes = (default_data_dir().parent, Path(tempfile.gettempdir()))
    return [folder for home in homes for folder in home.glob(f"worker-demo-{pid}-*")]


def demo(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """The demo as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "demo", *arguments], cwd=ROOT, env={**os.environ, **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_demo_does_what_it_says() -> None:
    process = demo("--json")
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert set(told) == {"steps", "webhook", "times", "retry", "storm", "outage", "seconds"}
    assert set(told["steps"]) == set(STEPS)
    assert {(step["status"], step["attempt"]) for step in told["steps"].values()} == {("completed", 1)}
    assert all(step["ms"] > 0 for step in told["steps"].values())
    assert told["retry"] == {"attempts": 2, "rerun": ["recent_performance"]}
    assert len(TAGS) == 11
    assert told["webhook"] == {"calls": 1, "tags": TAGS}
    assert set(told["times"]) == {"enqueue_ms", "wait_ms", "run_ms", "webhook_ms", "visible_ms"}
    assert all(0 < ms < 60_000 for ms in told["times"].values())
    assert told["storm"]["matches"] == 1000
    assert 1 <= told["storm"]["runs"] <= 2
    assert told["outage"] == {"job_status": "completed", "deliveries": 3}
    assert "100 matches without statistics, 1 job waiting" in err
    assert "every match has its report, and the receiver got 11 tags" in err
    assert err.count("exit 0") == 2
    assert leftovers(process.pid) == []


async def test_demo_on_a_given_server_leaves_no_database(
    cluster: Embedded | Given, maintenance: asyncpg.Connection
) -> None:
    process = demo(DATABASE_URL=cluster.dsn("postgres"))
    out, err = await asyncio.to_thread(process.communicate, timeout=SECONDS)
    assert process.returncode == 0, err
    assert re.search(r"season_honours +\|.*after match_report", out)
    assert "ran recent_performance alone; 9 steps" in out
    assert await maintenance.fetch("select datname from pg_database where datname like 'worker_demo_%'") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing(number: int) -> None:
    process = demo()
    assert process.stdout is not None
    while "started the daemon" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    assert leftovers(process.pid) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("# [job.invalidate_cache]", "# [job.refresh]"), ("$APP_URL", "https://app.example"), ("# then = ", "# when = ")],
)
def test_a_file_whose_webhook_would_call_elsewhere_is_not_played(old: str, new: str) -> None:
    text = (ROOT / "worker.toml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(DemoFailed, match="the configuration has nothing like"):
        with_webhook(text.replace(old, new))


def test_the_shipped_webhook_is_the_contract_s() -> None:
    shipped = (ROOT / "worker.toml").read_text(encoding="utf-8")
    assert "invalidate_cache" not in tomllib.loads(shipped)["job"]
    on = tomllib.loads(with_webhook(shipped))["job"]
    assert on["stats_update"]["then"] == ["invalidate_cache"]
    assert with_webhook(with_webhook(shipped)) == with_webhook(shipped)
    assert on["invalidate_cache"] == {
        "http": "$APP_URL/api/internal/cache/invalidate",
        "headers": {"Authorization": "Bearer $INTERNAL_API_KEY"},
        "body": {"tags": "{tags}", "source": "worker", "requestId": "{correlation_id}"},
        "coalesce": {"key": "cache", "unite": ["tags"]},
        "partial": {"status": 207, "failed": "failed_tags", "into": "tags"},
        "retry": {"max_attempts": 10000, "first": "1s", "max": "1m"},
        "deadline": "24h",
    }


def test_demo_that_cannot_happen_says_no() -> None:
    process = demo("--json", WORKER_PG_PREFIX="/nowhere", DATABASE_URL="")
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (1, "")
    assert "/nowhere" in err.splitlines()[-1]


def test_unknown_demo_is_bad_usage() -> None:
    process = demo("nix")
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert "there are: stats" in err


def test_the_next_demo_removes_what_a_killed_one_left() -> None:
    process = demo()
    assert process.stdout is not None
    while "started the daemon" not in process.stdout.readline():
        assert process.poll() is None
    left = leftovers(process.pid)
    process.kill()
    process.communicate(timeout=SECONDS)
    assert len(left) == 2
    assert demo("--json").communicate(timeout=SECONDS)[0]
    assert leftovers(process.pid) == []
