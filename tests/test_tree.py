"""What no file of this tree may hold: the address of a registry, or a path of the machine that it was written on."""

import re
from collections.abc import Iterator

import pytest

from tests.support import ROOT

FOLDERS = (".ci", "bench", "deploy", "docs", "examples", "sql", "tests", "worker")
REGISTRY = re.compile(r"docker[.]io|ghcr[.]|quay[.]io|//registry[.]|pypi[.]org|pythonhosted[.]|npmjs[.]")
HOME = re.compile(r"(?<![\w.])/(?:root|home|Users)/\w+")


def texts() -> Iterator[tuple[str, str]]:
    """Files by name, and what they hold; pictures and their like are left out."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    found = [path for path in ROOT.iterdir() if path.name not in (".git", *ignored)]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "node_modules" not in path.parts]
    for path in found:
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            if b"\0" not in content:
                yield path.relative_to(ROOT).as_posix(), content.decode(errors="replace")


@pytest.mark.parametrize("unwanted", [REGISTRY, HOME], ids=["registries", "homes"])
def test_no_file_names_one(unwanted: re.Pattern[str]) -> None:
    assert [(name, found[0]) for name, text in texts() if (found := unwanted.search(text))] == []


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("FROM ghcr" + ".io/a/b", False),
        ("index-url = https://pypi" + ".org/simple", False),
        ("FROM python:3.13-slim", True),
        ('CLONE = "/ro' + 'ot/clone"', False),
        ("metrics.registry.get_sample_value", True),
        ("read `/home` and `/root`", True),
        ("/proc/1/root/etc", True),
    ],
)
def test_it_would_see_one(text: str, sound: bool) -> None:
    assert (REGISTRY.search(text) is None and HOME.search(text) is None) is sound
