"""A small dose of the stress, and proof that its checker would see a fault."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.heart import becomes
from tests.processes import die_with_parent
from tests.stress.__main__ import _planned, chosen
from tests.stress.checker import CANARY
from tests.stress.experiment import Experiment, Report
from tests.stress.experiments.kill_loop import kill_loop
from tests.stress.jobs import VIOLATIONS, held, lines
from tests.stress.place import place, secretive
from tests.stress.runner import Runner
from tests.stress.telling import percentile, summary
from tests.stress.witness import slope
from tests.stress.workload import produce
from tests.support import ROOT
from worker.embedded import Embedded

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def server(cluster):
    if not isinstance(cluster, Embedded):
        pytest.skip("daemons of the stress test want a server of this run")
    return cluster


async def test_nothing_is_lost_under_kill(server, tmp_path):
    report = Report("1-kill-loop", planned=3)
    async with place(server, tmp_path, seed=1) as here:
        await kill_loop(here, report, daemons=3)
    assert report.faults == []
    assert report.ok


async def test_the_checker_sees_the_overlap_of_a_naive_worker(server, tmp_path):
    """NOT EXISTS, then update: eight of them, three keys for three hundred jobs."""
    async with place(server, tmp_path, seed=1) as here:
        await here.connection.execute('select worker.declare(\'[{"name": "keyed", "concurrency_key": "{key}"}]\')')
        await produce(here, 400, keys=3)
        await here.connection.execute("delete from worker.job_queue where job_type <> 'keyed'")
        command = [sys.executable, "-m", "tests.stress.naive", here.dsn, str(here.folder)]
        naive = [subprocess.Popen(command, cwd=ROOT, preexec_fn=die_with_parent) for _ in range(8)]  # noqa: PLW1509, ASYNC220
        await becomes(lambda: all(each.poll() is not None for each in naive), 90)
        assert [each.returncode for each in naive] == [0] * 8
        assert lines(here.folder, VIOLATIONS)


def test_a_second_holder_is_written_down(tmp_path: Path) -> None:
    file, found = tmp_path / "key-k", tmp_path / VIOLATIONS
    context = SimpleNamespace(job=SimpleNamespace(id=2, claim=2))
    with held(file, found, context):
        assert lines(tmp_path, VIOLATIONS) == []
        with held(file, found, context):
            pass
    with held(file, found, context):
        pass
    assert [line[:3] for line in lines(tmp_path, VIOLATIONS)] == [["key-k", "2", "2"]]


def test_fewer_faults_than_planned_is_a_failure() -> None:
    assert Report("x", planned=2, injected=2).ok
    assert not Report("x", planned=2, injected=1).ok
    assert not Report("x", planned=0, faults=["one"]).ok
    assert not Report("x", planned=0, skipped="no tool").ok


async def test_what_came_too_late_runs_once_more_by_itself_in_the_fast_tier_only() -> None:
    assert await _runs("fast") == (2, True, ["too late"])
    assert await _runs("nightly") == (1, False, [])


async def test_a_broken_invariant_is_not_given_another_run() -> None:
    assert await _runs("fast", violations=1) == (1, False, [])


async def _runs(tier: str, violations: int = 0) -> tuple[int, bool, list[str]]:
    """How often an experiment runs that fails at first, whether it holds in the end, and what is told of the first."""
    said: list[Report] = []

    async def conduct(place, report: Report) -> None:
        report.injected = 1
        report.violations = violations
        report.expect(bool(said), "too late")

    runner = Runner(tier, 1, said.append)
    runner._place = lambda experiment, lane: contextlib.nullcontext(None)  # needs no server
    (report,) = await runner.run([Experiment("x", {tier: 1}, conduct)])
    return len(said), report.ok, report.first


def test_experiments_are_chosen_by_tier_and_by_name() -> None:
    assert {"1-kill-loop", "4-zombie"} <= {each.id for each in chosen("fast", None)}
    assert [each.id for each in chosen("nightly", "4")] == ["4-zombie"]
    with pytest.raises(SystemExit, match="no such experiment: 4711"):
        chosen("fast", "4711")


def test_a_plan_can_be_replaced() -> None:
    (soak,) = chosen("soak", "87")
    assert _planned(soak, "soak", 5).planned == {"soak": 5}
    assert _planned(soak, "soak").planned == soak.planned


def test_a_password_is_planted_where_there_is_none() -> None:
    assert (
        secretive("postgresql://postgres@/db?host=/tmp&port=5")
        == f"postgresql://postgres:{CANARY}@/db?host=/tmp&port=5"
    )
    for as_it_is in ("postgresql://u:p@h/db", "postgresql:///db?host=/tmp"):
        assert secretive(as_it_is) == as_it_is


def test_what_grows_has_a_slope() -> None:
    assert slope([(at, 5.0 + 2 * at) for at in range(20)]) == pytest.approx(2)
    assert slope([(at, 50.0 if at < 5 else 7.0) for at in range(20)]) == pytest.approx(0)  # the start is not looked at
    assert slope([(1, 1.0)]) == 0


def test_the_summary_is_one_json_object() -> None:
    told = summary("fast", 7, [Report("a", 1, 1, recovery=[1.0, 3.0]), Report("b", 1, 0)])
    assert json.loads(json.dumps(told))["ok"] is False
    assert [each["ok"] for each in told["experiments"]] == [True, False]
    assert told["recovery_p99_s"] == 3.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert percentile([], 0.5) == 0.0
