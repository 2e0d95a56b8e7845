"""Every line of the suite is shown by something that exists, and what was shown is not older than the schema."""

import ast
from functools import cache

import pytest

from tests.stress import experiments  # noqa: F401 - they register themselves
from tests.stress.experiment import EXPERIMENTS
from tests.stress.proof import LINES, PAGE, kept, page, schema
from tests.support import ROOT

NUMBERS = [*range(1, 28), *range(29, 38), *range(39, 63), *range(64, 84), 85, 86, 87, 89]
TIERS = {"F": "fast", "N": "nightly", "S": "soak"}
REPEAT = "run it again: python3 dev.py stress --tier fast --write, and --tier nightly --write"


@cache
def names(file: str) -> frozenset[str]:
    """The tests of a file, and its classes of tests."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found |= {node.name, *(f"{node.name}::{each.name}" for each in node.body if hasattr(each, "name"))}
        elif hasattr(node, "name"):
            found.add(node.name)
    return frozenset(name for name in found if name.rpartition("::")[2].startswith(("test_", "Test")))


def exists(shown: str) -> bool:
    if not shown.startswith("tests/"):
        return shown in EXPERIMENTS
    file, _, name = shown.partition("::")
    return (ROOT / file).exists() and bool(names(file)) and (not name or name in names(file))


def test_every_line_of_the_suite_is_here() -> None:
    assert [int(number) for number in LINES] == NUMBERS
    assert [number for number, line in LINES.items() if ("shown" in line) == ("left" in line)] == []


@pytest.mark.parametrize("number", LINES)
def test_what_shows_a_line_exists_and_runs_when_it_must(number: str) -> None:
    line = LINES[number]
    shown = line.get("shown", [])
    assert [each for each in shown if not exists(each)] == []
    for letter in line["tier"] if shown else "":
        runs = [each for each in shown if each.startswith("tests/") or TIERS[letter] in EXPERIMENTS[each].planned]
        assert runs, f"nothing shows it in the tier {TIERS.get(letter)}"


def test_every_experiment_stands_in_its_line() -> None:
    listed = {each for line in LINES.values() for each in line.get("shown", []) if not each.startswith("tests/")}
    assert set(EXPERIMENTS) - listed == set()
    wrong = {each for number, line in LINES.items() for each in line.get("shown", [])
             if not each.startswith("tests/") and each.partition("-")[0] != number}  # fmt: skip
    assert wrong == set()


def test_every_experiment_has_a_result_and_none_is_older_than_the_schema() -> None:
    results = kept()
    old = {id for id, row in results["rows"].items() if results["runs"][row["run"]]["schema"] != schema()}
    assert old == set(), f"sql/migrations has changed since; {REPEAT}"
    assert EXPERIMENTS.keys() - results["rows"].keys() == set(), REPEAT


def test_every_result_holds() -> None:
    assert {id: row["faults"] for id, row in kept()["rows"].items() if row["verdict"] != "holds"} == {}


def test_the_page_is_made_from_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(kept())
