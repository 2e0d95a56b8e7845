#!/usr/bin/env python3
"""From a fresh clone to a running program with nothing but Python and its venv.

The first run makes `.venv` from the hashed requirements-dev.lock; later runs find it ready and need no network.
Everything this file itself has to say goes to standard error, so that `dev.py demo --json | jq` works.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

if sys.version_info < (3, 11):  # noqa: UP036, whoever has an older one should read why
    sys.exit("dev.py needs Python 3.11 or newer; this is " + sys.version.split()[0])

import tomllib  # after the check of the version, which brought it

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements-dev.lock"
MARK = VENV / "made-from"
BIN = VENV / "bin"
WAIT_SECONDS = 900.0

USAGE = """\
usage: python3 dev.py COMMAND [ARGUMENT…]

  demo       run the demo on a private Postgres (worker demo)
  test       run the tests (pytest; two processes unless a file is named)
  lint       ruff, mypy --strict: all of them, even when one fails
  stress     kill -9, lost connections and other unkindness (python -m tests.stress)
  bench      the measurements (python -m bench)
  dashboard  write deploy/grafana.json anew (python -m deploy.dashboard)
  postgres   as sh, with a private Postgres for trying things out, at DATABASE_URL
  sh         a shell in which `worker` and the tools are on the PATH; with arguments, that command

Arguments are passed on: python3 dev.py test tests/test_embedded.py -k kill
The first run installs the locked requirements into .venv; removing .venv starts anew.
"""

LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy", "--strict", "worker", "dev.py"),
)
LINTERS_IF_THERE = (("shellcheck", ".ci/run"),)


def main(arguments: Sequence[str]) -> int:
    """Bring .venv up to date, then become the command."""
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        (sys.stdout if arguments else sys.stderr).write(USAGE)
        return 0 if arguments else 2
    command = COMMANDS.get(arguments[0])
    if command is None:
        say(f"unknown command {arguments[0]!r}\n\n{USAGE}")
        return 2
    bootstrap()
    return command(list(arguments[1:]))


def demo(arguments: list[str]) -> int:
    """The demo, in the caller's folder; -P keeps what lies there from being imported."""
    become([python(), "-P", "-m", "worker", "demo", *arguments])


def test(arguments: list[str]) -> int:
    """The tests from the root, in two processes where that pays."""
    os.chdir(ROOT)
    become([python(), "-m", "pytest", *pytest_arguments(arguments)])


def lint(_: list[str]) -> int:
    """Every linter, whatever the others said."""
    optional = [command for command in LINTERS_IF_THERE if (BIN / command[0]).exists()]
    failed = [command for command in (*LINTERS, *optional) if not passes(command)]
    for command in failed:
        say(f"failed: {' '.join(command)}")
    return 1 if failed else 0


def stress(arguments: list[str]) -> int:
    """The stress tests."""
    os.chdir(ROOT)
    become([python(), "-m", "tests.stress", *arguments])


def bench(arguments: list[str]) -> int:
    """The measurements."""
    os.chdir(ROOT)
    become([python(), "-m", "bench", *arguments])


def dashboard(arguments: list[str]) -> int:
    """The Grafana dashboard, from the table of its panels."""
    os.chdir(ROOT)
    become([python(), "-m", "deploy.dashboard", *arguments])


def postgres(arguments: list[str]) -> int:
    """A command, or the user's shell, in their folder, with a private Postgres."""
    become([python(), "-P", "-m", "worker.embedded", *arguments])


def shell(arguments: list[str]) -> int:
    """A command, or the user's shell."""
    become(arguments or [os.environ.get("SHELL") or "/bin/sh"])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "test": test,
    "lint": lint,
    "stress": stress,
    "bench": bench,
    "dashboard": dashboard,
    "postgres": postgres,
    "sh": shell,
}


def pytest_arguments(given: Sequence[str]) -> list[str]:
    """Two processes, unless a number is given or one file, for which a second process only costs time."""
    numbered = any(each.startswith(("-n", "--numprocesses")) for each in given)
    one_file = any(".py" in each for each in given)
    return [*given] if numbered or one_file else ["-n", "2", *given]


def passes(command: Sequence[str]) -> bool:
    """Run one linter from the root and say which."""
    say(f"$ {' '.join(command)}")
    return subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False).returncode == 0


def become(command: list[str]) -> NoReturn:
    """Replace this process, with .venv first on the PATH."""
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV), "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment.pop("PYTHONHOME", None)
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def bootstrap() -> None:
    """Make .venv, unless it was made from this very lock by this very Python."""
    if is_ready():
        return
    with alone(ROOT / ".venv.lock"):
        if not is_ready():  # the one before us may have made it
            build()


def is_ready() -> bool:
    """Whether .venv was finished, from what stands in the lock now, and its Python still runs."""
    try:
        return MARK.read_text() == fingerprint() and os.access(python(), os.X_OK)
    except OSError:
        return False


def fingerprint() -> str:
    """Of everything that .venv is made from: the lock, the version of Python, this project's name and place."""
    facts = (sys.version_info[:2], str(ROOT), *project())
    return hashlib.sha256(LOCK.read_bytes() + repr(facts).encode()).hexdigest()


def project() -> tuple[str, str, dict[str, str]]:
    """Name, version and commands of this project."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return declared["name"], declared["version"], declared["scripts"]


def build() -> None:
    """From nothing; the mark is written last, so whatever is broken half-way is made anew next time."""
    started = time.monotonic()
    say(f"making {VENV.name} from {LOCK.name}, once; this needs the package index")
    remove(VENV)
    (with_uv if shutil.which("uv") else with_pip)()
    install_project()
    MARK.write_text(fingerprint())
    say(f"{VENV.name} is ready after {time.monotonic() - started:.0f} s")


def with_uv() -> None:
    """Install by uv, with this very Python."""
    run(["uv", "venv", "--quiet", "--no-project", "--python", base_python(), str(VENV)])
    run(["uv", "pip", "install", "--quiet", "--python", python(), "--no-deps", "--require-hashes", "-r", str(LOCK)])


def with_pip() -> None:
    """Install by the pip that venv brings along."""
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:
        sys.exit("dev.py: this Python cannot make a venv with pip (on Debian: apt-get install python3-venv)")
    pip = [python(), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    run([*pip, "--no-deps", "--require-hashes", "-r", str(LOCK)])


def install_project() -> None:
    """What an editable install leaves behind, written by hand: no build backend, no network."""
    name, version, commands = project()
    packages = next((VENV / "lib").glob("python3*/site-packages"))
    (packages / "_job_queue_worker.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    info = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    scripts = "".join(f"{command} = {target}\n" for command, target in commands.items())
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[console_scripts]\n{scripts}", encoding="utf-8")
    (info / "INSTALLER").write_text("dev.py\n", encoding="utf-8")
    (info / "RECORD").write_text("", encoding="utf-8")
    for command, target in commands.items():
        write_script(BIN / command, *target.split(":"))


def write_script(path: Path, module: str, function: str) -> None:
    """A command; through /bin/sh, because a #! line takes neither blanks nor long paths."""
    head = """#!/bin/sh\n'''exec' "$(dirname "$0")/python" "$0" "$@"\n' '''\n"""
    path.write_text(
        f"{head}import sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n", encoding="utf-8"
    )
    path.chmod(0o755)


def run(command: Sequence[str]) -> None:
    """A step of the bootstrap: its chatter to standard error, its failure is ours."""
    if code := subprocess.run(command, stdout=sys.stderr, cwd=ROOT, check=False).returncode:
        sys.exit(f"dev.py: {' '.join(map(str, command[:6]))} … ended with {code}; run it again once that is mended")


def remove(path: Path) -> None:
    """Away with it, be it a folder, a link or not there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two first runs at once make one .venv."""
    import fcntl

    with path.open("w") as handle:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                sys.exit(f"dev.py: another run has held {path.name} for {WAIT_SECONDS:.0f} s")
            time.sleep(0.1)
        yield


def python() -> str:
    """The venv's interpreter."""
    return str(BIN / "python")


def base_python() -> str:
    """The interpreter behind this one, as this one may be the very .venv that is being made anew."""
    return str(getattr(sys, "_base_executable", sys.executable))


def say(text: str) -> None:
    """To standard error, always."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
