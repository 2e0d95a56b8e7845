"""The tests that the pages of the systems, and all other pages, name as showing something exist."""

import re
from pathlib import Path

import pytest

from tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SYSTEMS = [page for page in sorted((ROOT / "docs" / "systems").glob("*.md")) if page.stem != "moving-over"]
DEFINED = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))
}


def named(text: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert named(text) - DEFINED == set()
    assert [path for path in re.findall(r"\btests/[\w/]+\.py\b", text) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("page", SYSTEMS, ids=lambda page: page.stem)
def test_a_system_is_shown_by_tests(page: Path) -> None:
    assert len(named(page.read_text(encoding="utf-8"))) > 30
