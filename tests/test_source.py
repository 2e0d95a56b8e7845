"""Rules of the house that a linter does not know."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

SOURCES = sorted((ROOT / "worker").rglob("*.py"))
FUNCTION_LINES = 50
FILE_LINES = 250
CALL = re.compile(r"\bselect\b.*\bworker\.\w+\(", re.IGNORECASE | re.DOTALL)
STATEMENT = re.compile(r"\b(select|update|insert|delete)\s", re.IGNORECASE)


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def sql_f_strings(tree: ast.Module) -> Iterator[int]:
    """The lines of f-strings that look like a statement of SQL."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            fixed = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
            if fixed and STATEMENT.match(fixed[0].lstrip()):
                yield node.lineno


def test_no_module_bears_a_name_of_the_standard_library() -> None:
    names = {path.relative_to(ROOT / "worker").parts[0].removesuffix(".py") for path in SOURCES}
    assert names & sys.stdlib_module_names == set()


def test_functions_are_small(trees: dict[Path, ast.Module]) -> None:
    sizes = {(path, each.name): each.end_lineno - each.lineno + 1 for path in trees for each in functions(trees[path])}
    assert {where: size for where, size in sizes.items() if size > FUNCTION_LINES} == {}


def test_files_are_small() -> None:
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {path.name: size for path, size in sizes.items() if size > FILE_LINES} == {}


def test_no_sql_is_put_together_in_python(trees: dict[Path, ast.Module]) -> None:
    assert [f"{path}:{line}" for path, tree in trees.items() for line in sql_f_strings(tree)] == []


def test_the_daemon_calls_the_queue_in_one_place(trees: dict[Path, ast.Module]) -> None:
    """The lease and steps have connections of their own, as people have; verbs, checks and tests are no part of it."""
    session = {"beat.py", "lease.py", "connection.py", "step.py", "kept_step.py", "sql_graph.py"}
    people = {"desk.py", "sync.py", "games.py"}  # of the web side, and what systems add there
    schema = {"migrations.py", "edition.py", "exporter.py", "testing.py"}
    known = {"job_queue.py", "ongoing.py", "timetable.py", *session, *people, *schema}
    calls = {path for path, tree in trees.items() for node in ast.walk(tree) if CALL.search(_text(node))}
    rooms = {path.name for path in calls if path.parts[1] not in ("cli", "check", "demo")}
    assert rooms == known


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_the_check_for_sql_sees_some() -> None:
    tree = ast.parse('f"select {a}"; f"{b}"; f"  Update t set x = {a}"; "select 1"; f"please select {c} of these"')
    assert len(list(sql_f_strings(tree))) == 2
