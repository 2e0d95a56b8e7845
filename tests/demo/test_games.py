"""`worker demo games`, end to end as a real process."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.demo.test_demo import demo, leftovers
from tests.jobs.games import needs_engine

pytestmark = pytest.mark.timeout(330)

SECONDS = 280  # a shared machine; on a quiet one it takes about half a minute


@contextmanager
def played(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo; it ends with the block, also where that gave up waiting."""
    process = demo(*arguments, **environment)
    with process:
        try:
            yield process
        finally:
            process.kill()


@needs_engine
def test_the_demo_of_games_does_what_it_says() -> None:
    with played("games", "--json") as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert set(told) == {
        "engine", "refusals", "kill", "resume", "again", "partial", "limits", "lag", "savings", "seconds"
    }  # fmt: skip
    assert told["refusals"] == {"platform": "GS400", "user": "GS404", "active": "GS409"}
    assert 50 <= told["kill"]["analysed"] < 200
    assert told["resume"] == {"analysed": 200, "repeated": 0, "requests": 0}
    assert told["again"] == {"skipped": 200}
    assert told["partial"].pop("error").startswith("24/25 games analysed. 1 failed: ")
    assert told["partial"] == {"found": 26, "analyzed": 24, "skipped": 1, "failed": 1}
    limits = told["limits"]
    assert limits.pop("refused") == 0
    assert all(each["most"] <= each["bound"] for each in limits.values())
    assert told["lag"]["looks"] >= told["lag"]["within_50_ms"] > 0
    selection, batching = told["savings"]["selection"], told["savings"]["batching"]
    assert selection["quick"] + selection["deep"] == 200
    assert 0 < selection["nodes"] < selection["all_deep"]
    assert batching["times"] > 0
    assert leftovers(process.pid) == []


def test_without_an_engine_it_says_so_by_its_exit_code_too() -> None:
    with played("games", "--json", WORKER_DEMO_ENGINE="/nowhere/engine") as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    told = json.loads(out)
    assert told["engine"] is None
    assert told["missing"].startswith("no UCI engine is installed")
    assert told["found"] == 200
    assert "there is no UCI engine" in told["error"]
    assert leftovers(process.pid) == []
