"""Every verb explains itself, quickly, and as docs/cli.md says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tests.support import ROOT
from worker.cli.app import app

PAGE = ROOT / "docs" / "cli.md"
HEAVY = ("asyncpg", "pydantic", "rich", "structlog", "uvloop", "worker.service")


def verbs(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


VERBS = dict(verbs())


def options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")} - {"--help"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_has_help(verb: str) -> None:
    assert VERBS[verb].help
    assert [p.name for p in VERBS[verb].params if p.name != "help" and not getattr(p, "help", None)] == []


def sections() -> dict[str, str]:
    """What the page says, by verb; arguments in a heading are in capitals or brackets."""
    page = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r"^### `worker ([a-z]+(?: [a-z]+)*)[^`]*`\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))


def test_page_has_the_verbs() -> None:
    assert set(sections()) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_page_has_the_options(verb: str) -> None:
    assert set(re.findall(r"`(--[a-z-]+)", sections()[verb])) == options(VERBS[verb])


@pytest.mark.parametrize("arguments", [["--version"], ["-h"], ["jobs", "-h"], ["config", "show", "-h"]])
def test_version_and_short_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith(("worker 0.", "Usage: "))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom worker.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n"
        f"    print(end.code, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stderr.strip() == "0 []"
    assert all(f"  {verb.split()[0]} " in ended.stdout for verb in VERBS)
