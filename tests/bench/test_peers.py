"""What the comparison with other queues reckons and declares, without installing or measuring any."""

import ast
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.peers import page
from bench.peers.catalogue import HERE, catalogue, peers
from bench.peers.figure import BEYOND, OURS, RAW, UNITS, Run, figures
from bench.peers.install import MissingError, python_for, reason
from bench.peers.measures import jobs_at_once
from bench.peers.process import WARM, Tally, enqueued

RUNS = [
    {"other": Run({"drain": 40.0, "recovery": 30.0}), RAW: Run({"drain": 100.0}), OURS: Run({"drain": 80.0})},
    {"other": Run({"drain": 50.0}), RAW: Run({"drain": 200.0}), OURS: Run({"drain": 90.0})},
]
RUN = {"machine": "2 cores", "load": 0.1, "scale": 1.0, "note": "", "missing": {"oban": "no"}}


def test_every_queue_is_declared_whole() -> None:
    pinned = json.loads((HERE / "package.json").read_text())["dependencies"]
    constraints = (HERE / "requirements.txt").read_text()
    for entry in catalogue().values():
        suffix = ".mjs" if entry.language == "node" else ".py"
        assert (HERE / f"{entry.adapter}{suffix}").exists()
        assert entry.open_jobs().startswith("select count(*) from")
        assert entry.any_open().startswith("select count(*) from")
    for entry in peers().values():
        assert entry.title
        assert entry.package in pinned or re.search(rf"^{entry.package}==\d", constraints, re.MULTILINE)


def test_versions_are_exact_and_name_no_address() -> None:
    package = json.loads((HERE / "package.json").read_text())
    lines = [line for line in (HERE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    versions = [*package["dependencies"].values(), *package["optionalDependencies"].values()]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", each) for each in versions)
    assert not [name for name in ("package-lock.json", "uv.lock") if (HERE / name).exists()]


def test_a_queues_process_needs_the_standard_library_alone() -> None:
    nodes = ast.walk(ast.parse((HERE / "process.py").read_text()))
    froms = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    assert froms <= sys.stdlib_module_names


def test_medians_of_the_runs_and_of_their_own_ratios() -> None:
    drain = next(each for each in figures("other", {"batch": 1}, "1.0", RUNS) if each.name == "drain")
    assert (drain.value, drain.raw, drain.ours) == (45.0, 150.0, 85.0)
    assert (drain.ratio, drain.ours_ratio) == (pytest.approx(0.325), pytest.approx(1.9))
    promised = {"name", "peer", "value", "unit", "raw", "ratio", "runs", "settings", "version"}
    assert promised <= set(drain.as_dict())


def test_ours_are_not_compared_with_themselves() -> None:
    drain = next(each for each in figures(OURS, {}, "1.0", RUNS) if each.name == "drain")
    assert (drain.value, drain.ours, drain.ours_ratio) == (85.0, None, None)


@pytest.mark.parametrize(
    ("run", "value", "note"),
    [
        (Run({"recovery": 30.5}), 30.5, ""),
        (Run({"recovery": math.inf}), None, BEYOND),
        (Run({}, ["recovery: its worker ended with 1"]), None, "recovery: its worker ended with 1"),
    ],
)
def test_what_was_not_reached_says_why(run: Run, value: float | None, note: str) -> None:
    told = figures("other", {}, "1", [{"other": run, OURS: Run({"recovery": 5.0})}])
    recovery = next(each for each in told if each.name == "recovery")
    assert (recovery.value, recovery.note) == (value, note)
    json.dumps(recovery.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "ours_ratio", "note", "text"),
    [
        ("drain", 2.0, "", "2"),
        ("pickup_p99", 0.5, "", "2"),
        ("drain", None, "drain: not done within 60 s", "–"),
        ("recovery", None, BEYOND, "> 12"),
    ],
)
def test_ahead_is_above_one_whatever_the_unit(name: str, ours_ratio: float | None, note: str, text: str) -> None:
    assert page.better({"name": name, "ours": 5.0, "ours_ratio": ours_ratio, "note": note}) == text


def test_the_page_is_made_from_the_figures() -> None:
    other = [each.as_dict() for each in figures("pgqueuer", {"batch_size": 200}, "9.9", _as("pgqueuer"))]
    told = page.page(page.merged({"runs": {}, "figures": []}, "first", RUN, [*_own(), *other]))
    assert "| PgQueuer | 45 (0.325) | – | – |" in told
    assert "| PgQueuer | 9.9 | 50,000 | batch_size 200 | first |" in told
    assert "Left out: Oban for Python: no." in told


def test_a_run_of_some_replaces_theirs_alone() -> None:
    others = [each.as_dict() for name in ("oban", "pgqueuer") for each in figures(name, {}, "9.9", _as(name))]
    first = page.merged({"runs": {}, "figures": []}, "first", RUN, [*_own(), *others])
    second = page.merged(first, "second", RUN, [each for each in others if each["peer"] == "oban"])
    runs = {each["peer"]: each["run"] for each in second["figures"]}
    assert list(runs.items()) == [(OURS, "first"), ("pgqueuer", "first"), ("oban", "second")]
    third = page.merged(second, "third", RUN, [*_own(), *others])
    assert set(third["runs"]) == {"third"}


def test_the_page_that_is_kept_is_the_one_of_the_figures_that_are_kept() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.page(json.loads(page.RESULTS.read_text(encoding="utf-8")))


def test_a_tally_reports_when_all_have_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "report.json"
    monkeypatch.setenv("BENCH_REPORT", str(report))
    monkeypatch.setenv("BENCH_JOBS", "2")
    tally = Tally()
    tally.add({"n": 0})
    assert (tmp_path / "report.first").exists()
    assert not report.exists()
    tally.add({"n": 1, "at": 0.0})
    told = json.loads(report.read_text())
    assert told["first"] <= told["last"]
    assert len(told["waits"]) == 1


async def test_what_is_put_in_is_what_was_asked_for() -> None:
    class Counter:
        def __init__(self) -> None:
            self.single, self.bulk = 0, list[int]()

        async def one(self, payload: dict[str, Any]) -> None:
            self.single += 1

        async def many(self, payloads: list[dict[str, Any]]) -> None:
            self.bulk.append(len(payloads))

    counter = Counter()
    assert set(await enqueued(counter, 3, 2_500)) == {"enqueue", "enqueue_many"}
    assert (counter.single, counter.bulk) == (WARM + 3, [1_000, 1_000, 500])


@pytest.mark.parametrize(
    ("settings", "at_once"), [({"concurrency": 8}, 8), ({"batchSize": 1_000, "localConcurrency": 4}, 1_000), ({}, 1)]
)
def test_how_many_jobs_run_at_once(settings: dict[str, int], at_once: int) -> None:
    assert jobs_at_once(settings) == at_once


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ERROR: Ignored the following\nERROR: No matching distribution found for x==1\n", "x==1"),
        ("npm error code ETARGET\nnpm error notarget No matching version found for y@^2.\nnpm error in /log", "y@^2."),
        ("npm error network request to https://example.test failed", "it could not be installed"),
        ("", "it could not be installed"),
    ],
)
def test_why_it_is_missing_is_told_without_paths_and_addresses(said: str, told: str) -> None:
    assert reason(said).endswith(told)


def test_a_python_that_is_not_there_is_said() -> None:
    assert python_for("3.11", [sys.executable]) == sys.executable
    with pytest.raises(MissingError, match=r"needs Python 99\.0"):
        python_for("99.0", ["/nowhere/python", sys.executable])


def _own() -> list[dict[str, Any]]:
    return [each.as_dict() for each in figures(OURS, {"concurrency": 1_000}, "1.0", RUNS)]


def _as(name: str) -> list[dict[str, Run]]:
    return [{(name if each == "other" else each): run for each, run in runs.items()} for runs in RUNS]


def test_every_figure_is_told() -> None:
    told = {name for columns in page.TABLES.values() for name in columns}
    assert told <= set(UNITS)
