"""`dev.py postgres`: a command beside a private Postgres that ends with it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import server_folder
from worker.embedded import __main__ as shell
from worker.embedded import start
from worker.embedded.postmaster import alive, read

COMMAND = 'echo "$DATABASE_URL" > "$ANSWER"; command -v psql >> "$ANSWER"; kill -INT $$; exit 9'


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with server_folder(brief=True) as path:
        monkeypatch.setattr(shell, "default_data_dir", lambda: path)
        yield path


def test_a_command_beside_a_server_that_ends_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANSWER", str(tmp_path / "answer"))
    assert shell.main(["sh", "-c", COMMAND]) == -2  # Ctrl-C is for the command, which may be interrupted
    url, psql = (tmp_path / "answer").read_text().splitlines()
    assert str(folder) in url
    assert os.access(psql, os.X_OK)
    assert read(folder / "cluster") is None
    said = capsys.readouterr()
    assert (said.out, "no passwords" in said.err) == ("", True)


def test_a_server_of_another_shell_goes_on(folder: Path) -> None:
    server = start(folder)
    assert shell.main(["true"]) == 0
    assert alive(server.pid)
    server.stop()


def test_a_command_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.main(["/nowhere/at-all"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert read(folder / "cluster") is None
