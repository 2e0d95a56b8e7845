"""Asking before something is destroyed."""

import io
from pathlib import Path

import pytest

from tests.heart import configured
from worker.cli.ask import agreed
from worker.cli.verdict import Refused
from worker.config import Config


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path, "postgresql://x/y", "")


@pytest.mark.parametrize(
    ("answer", "expected"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_yes_is_yes(config: Config, monkeypatch: pytest.MonkeyPatch, answer: str, expected: bool) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert agreed("drop it", config, yes=False) is expected


def test_the_question_names_deed_and_environment(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    agreed("drop it", config, yes=False)
    said = capsys.readouterr()
    assert said.out == ""
    assert "on test: drop it\n" in said.err
    assert "nothing was done" in said.err


def test_nobody_to_ask(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Refused, match="--yes"):
        agreed("drop it", config, yes=False)
    assert agreed("drop it", config, yes=True)
