"""Prism, a mock server, with the description that Twilio publishes of its own API: both from the npm registry, at the
versions named here, kept in the user's cache."""

import fcntl
import json
import os
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.processes import die_with_parent
from tests.support import free_port

PRISM = ("@stoplight/prism-cli", "5.14.2")
TWILIO = ("@twilio/cli-core", "8.3.2")
DESCRIPTION = "package/src/services/twilio-api/twilio_api_v2010.json"
FLAGS = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
SECONDS = 90.0


class Missing(Exception):
    """Prism cannot be had on this machine, and why."""


def installed() -> Path:
    """The folder with both, installed the first time; raises Missing."""
    npm, base = shutil.which("npm"), os.environ.get("XDG_CACHE_HOME")
    if not npm or not shutil.which("node"):
        raise Missing("needs node and npm")
    folder = Path(base or Path.home() / ".cache") / "job-queue-worker" / f"prism-{PRISM[1]}-{TWILIO[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "description.json").exists():
            try:
                _bring(npm, folder)
            except (OSError, subprocess.SubprocessError, KeyError) as error:
                raise Missing(f"could not be installed: {type(error).__name__}") from error
    return folder


def described() -> Any:
    """Twilio's description of its API; raises Missing."""
    return json.loads((installed() / "description.json").read_text(encoding="utf-8"))


@contextmanager
def prism(log: Path) -> Iterator[str]:
    """The mock server at work; gives its origin. It refuses what the description does not allow."""
    folder, port = installed(), free_port()
    command = [
        "node", str(folder / "node_modules" / PRISM[0] / "dist" / "index.js"), "mock", "-h", "127.0.0.1",
        "-p", str(port), str(folder / "description.json"),
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                   preexec_fn=die_with_parent)  # noqa: PLW1509 - one prctl, nothing that takes a lock  # fmt: skip
    try:
        _await(process, f"http://127.0.0.1:{port}/", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def _bring(npm: str, folder: Path) -> None:
    wanted = {"private": True, "dependencies": {PRISM[0]: PRISM[1]}}
    (folder / "package.json").write_text(json.dumps(wanted))
    _run([npm, "install", "--prefix", str(folder), *FLAGS], folder)
    (packed,) = json.loads(_run([npm, "pack", "--json", "@".join(TWILIO)], folder))
    with tarfile.open(folder / packed["filename"]) as package:
        member = package.extractfile(DESCRIPTION)
        assert member is not None
        (folder / "description.json").write_bytes(member.read())


def _run(command: list[str], folder: Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS, cwd=folder).stdout


def _await(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while True:
        with suppress(OSError):
            try:
                urllib.request.urlopen(url, timeout=5)
            except urllib.error.HTTPError:
                return  # it answers, which is all that is asked
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"Prism does not answer:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
