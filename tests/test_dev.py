"""The bootstrap: when it works, what it passes on, and that standard output stays the command's."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import dev
from tests.support import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with nothing to install, and dev.py pointed at it."""
    (tmp_path / "requirements-dev.lock").write_text("")
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker/__init__.py").write_text("")
    (tmp_path / "worker/cli.py").write_text("import sys\ndef main():\n    print(sys.argv[1:])\n    return 3\n")
    places = {"ROOT": tmp_path, "VENV": tmp_path / ".venv", "LOCK": tmp_path / "requirements-dev.lock"}
    for name, value in {**places, "BIN": tmp_path / ".venv/bin", "MARK": tmp_path / ".venv/made-from"}.items():
        monkeypatch.setattr(dev, name, value)
    return tmp_path


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often .venv was made; the installer does next to nothing."""
    times: list[str] = []

    def install() -> None:
        times.append("made")
        (dev.VENV / "lib/python3.11/site-packages").mkdir(parents=True)
        dev.BIN.mkdir()
        Path(dev.python()).symlink_to(sys.executable)

    monkeypatch.setattr(dev, "with_pip", install)
    monkeypatch.setattr(dev, "with_uv", install)
    return times


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that dev.py would have turned into."""
    commands: list[list[str]] = []
    monkeypatch.setattr(dev, "become", commands.append)
    monkeypatch.setattr(dev, "bootstrap", lambda: None)
    monkeypatch.chdir(ROOT)
    return commands


def test_the_second_run_finds_it_ready(project: Path, built: list[str]) -> None:
    dev.bootstrap()
    dev.bootstrap()
    assert built == ["made"]


@pytest.mark.parametrize("part", ["requirements-dev.lock", "pyproject.toml"])
def test_another_lock_or_version_makes_it_anew(project: Path, built: list[str], part: str) -> None:
    dev.bootstrap()
    text = (project / part).read_text()
    (project / part).write_text(text.replace('version = "0.1.0"', 'version = "0.2.0"') if text else "# newer\n")
    dev.bootstrap()
    assert built == ["made", "made"]


def test_a_tools_setting_in_pyproject_does_not(project: Path, built: list[str]) -> None:
    dev.bootstrap()
    with (project / "pyproject.toml").open("a") as toml:
        toml.write("\n[tool.other]\nkey = 1\n")
    dev.bootstrap()
    assert built == ["made"]


def test_what_was_broken_half_way_is_made_anew(project: Path, built: list[str]) -> None:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to("/nowhere/python")
    dev.bootstrap()
    assert built == ["made"]


def test_a_python_that_went_away_makes_it_anew(project: Path, built: list[str]) -> None:
    dev.bootstrap()
    Path(dev.python()).unlink()
    Path(dev.python()).symlink_to("/nowhere/python")
    dev.bootstrap()
    assert built == ["made", "made"]


def test_a_failed_install_leaves_no_mark(project: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "install_project", lambda: dev.run([sys.executable, "-c", "raise SystemExit(7)"]))
    with pytest.raises(SystemExit, match="ended with 7"):
        dev.bootstrap()
    assert not dev.is_ready()


def test_of_two_first_runs_at_once_one_makes_it(project: Path, built: list[str]) -> None:
    runs = [threading.Thread(target=dev.bootstrap) for _ in range(4)]
    for each in runs:
        each.start()
    for each in runs:
        each.join(timeout=60)
    assert built == ["made"]


def test_the_command_is_there_and_its_version_known(project: Path) -> None:
    dev.bootstrap()
    done = subprocess.run([dev.BIN / "worker", "a b", "-c"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "['a b', '-c']\n", "")
    code = "import importlib.metadata as m, worker; print(m.version('job-queue-worker'), worker.__file__)"
    done = subprocess.run([dev.python(), "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == f"0.1.0 {project}/worker/__init__.py\n"


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([], ["-n", "2"]),
        (["-k", "kill"], ["-n", "2", "-k", "kill"]),
        (["tests/browser", "-k", "x"], ["-n", "2", "tests/browser", "-k", "x"]),
        (["tests/test_job.py::test_one"], ["tests/test_job.py::test_one"]),
        (["-n0", "-x"], ["-n0", "-x"]),
        (["--numprocesses=4"], ["--numprocesses=4"]),
    ],
)
def test_pytest_gets_two_processes_where_that_pays(given: list[str], passed: list[str]) -> None:
    assert dev.pytest_arguments(given) == passed


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (["demo", "--json"], ["-P", "-m", "worker", "demo", "--json"]),
        (["stress", "fast"], ["-m", "tests.stress", "fast"]),
        (["bench", "--jobs", "10"], ["-m", "bench", "--jobs", "10"]),
        (["dashboard"], ["-m", "deploy.dashboard"]),
        (["postgres", "psql"], ["-P", "-m", "worker.embedded", "psql"]),
        (["test", "-n0", "-k", "a or b"], ["-m", "pytest", "-n0", "-k", "a or b"]),
    ],
)
def test_arguments_are_passed_on(became: list[list[str]], given: list[str], end: list[str]) -> None:
    dev.main(given)
    assert became == [[dev.python(), *end]]


def test_a_command_of_ones_own(became: list[list[str]]) -> None:
    dev.main(["sh", "worker", "--help"])
    assert became == [["worker", "--help"]]


@pytest.mark.parametrize(("given", "code"), [([], 2), (["tset"], 2), (["--help"], 0)])
def test_usage(capsys: pytest.CaptureFixture[str], given: list[str], code: int) -> None:
    assert dev.main(given) == code
    said = capsys.readouterr()
    assert "usage: python3 dev.py" in (said.err if code else said.out)
    assert (said.out if code else said.err) == ""


def test_bootstrap_chatter_goes_to_standard_error(
    project: Path, built: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    dev.bootstrap()
    dev.run([sys.executable, "-c", "print('chatter')"])
    said = capfd.readouterr()
    assert said.out == ""
    assert "chatter" in said.err


def test_lint_runs_all_and_fails_if_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(dev, "passes", lambda command: ran.append(command[0]) or len(ran) != 1)
    assert dev.lint([]) == 1
    assert ran[:3] == ["ruff", "ruff", "mypy"]
    assert dev.lint([]) == 0
