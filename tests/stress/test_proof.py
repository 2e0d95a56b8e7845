"""What is kept of runs, and the page that is made of it."""

import json
from pathlib import Path

import pytest

from tests.stress import (
    experiments,  # noqa: F401 - they register themselves
    proof,
)
from tests.stress.experiment import EXPERIMENTS, Report


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(proof, "RESULTS", tmp_path / "proof.json")
    monkeypatch.setattr(proof, "PAGE", tmp_path / "proof.md")


def rows() -> dict[str, str]:
    return {id: row["verdict"] for id, row in proof.kept()["rows"].items()}


def test_a_run_replaces_the_rows_of_its_own_experiments_only() -> None:
    holds = Report("1-kill-loop", planned=200, injected=200, jobs=2_000)
    proof.write("nightly", 7, [holds, Report("86-history", planned=60, faults=["it | broke\nhere"])])
    assert rows() == {"1-kill-loop": "holds", "86-history": "FAILS"}
    proof.write("nightly", 8, [Report("86-history", planned=60, skipped="no log")])
    assert rows() == {"1-kill-loop": "holds", "86-history": "skipped"}
    page = proof.PAGE.read_text()
    assert page == proof.page(proof.kept())
    assert "| 1-kill-loop | 200 of 200 |" in page
    assert "- 86-history: no log." in page
    assert "seed 7" in page


def test_the_result_that_is_kept_is_of_the_longest_tier() -> None:
    """A fast run says nothing of an experiment that a night runs at length."""
    fast_only = next(id for id, each in EXPERIMENTS.items() if set(each.planned) == {"fast"})
    proof.write("fast", 1, [Report("1-kill-loop", planned=20, injected=20), Report(fast_only, planned=0)])
    assert rows() == {fast_only: "holds"}


def test_a_failure_stands_in_its_cell() -> None:
    proof.write("nightly", 7, [Report("86-history", planned=60, faults=["it | broke\nhere"])])
    assert "it \\| broke here | FAILS |" in proof.PAGE.read_text()
    assert json.loads(proof.RESULTS.read_text())["rows"]["86-history"]["faults"] == ["it | broke\nhere"]


def test_the_schema_is_that_of_the_migrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(proof, "ROOT", tmp_path)
    folder = tmp_path / "sql/migrations"
    folder.mkdir(parents=True)
    seen = {proof.schema()}
    for name, text in (("0001_a.sql", "x"), ("0001_a.sql", "y"), ("0002_b.sql", "")):
        (folder / name).write_text(text)
        seen.add(proof.schema())
    assert len(seen) == 4
