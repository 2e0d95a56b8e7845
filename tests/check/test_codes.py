"""docs/check.md explains every code that there is, and the table of broken set-ups breaks it."""

import ast
import re

from tests.check.test_broken_setups import CASES
from tests.support import ROOT

PAGE = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| `(?P<code>[a-z]+\.[a-z_]+)` \| (?P<level>[^|]+) \| (?P<means>[^|]+) \| (?P<cure>[^|]+) \|$", re.MULTILINE
)
CODE = re.compile(r"'([a-z]+\.[a-z_]+)'(?= as code|,| when| else| end)")

# No server of another version, encoding or kind is made for it, and the others have tests of their own.
ELSEWHERE = {
    "database.version", "database.encoding", "database.replica", "database.silent", "notifications.silent",
    "endpoints.refused", "rights.superuser", "systems.failing",
}  # fmt: skip


def codes() -> set[str]:
    """Every code of a fault or warning in the program."""
    found = {code for path in (ROOT / "sql" / "check").glob("*.sql") for code in CODE.findall(path.read_text("utf-8"))}
    for path in (ROOT / "worker" / "check").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("fault", "warning"):
                (code, *_) = node.args
                found |= {code.value} if isinstance(code, ast.Constant) else set()
    return found


def test_the_page_is_complete() -> None:
    assert {row["code"] for row in ROW.finditer(PAGE)} == codes()


def test_the_table_is_complete() -> None:
    assert {case.code for case in CASES} == codes() - ELSEWHERE
