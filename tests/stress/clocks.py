"""Clocks that lie, by the program faketime."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.processes import die_with_parent
from tests.stress.experiment import Missing
from worker.embedded import cluster

NAMES = ("LD_PRELOAD", "FAKETIME", "FAKETIME_SHARED")
START_SECONDS = 10.0


@cache
def program() -> str:
    """Where faketime is.

    Raises:
        Missing: nowhere.
    """
    if not (found := shutil.which("faketime")):
        raise Missing("faketime is not installed")
    return found


@cache
def library() -> str:
    """What a process has to load first."""
    said = subprocess.run([program(), "-f", "+0", "env"], capture_output=True, text=True, check=True, timeout=20).stdout
    return next(line.removeprefix("LD_PRELOAD=") for line in said.splitlines() if line.startswith("LD_PRELOAD="))


def lying(clock: str, **more: str) -> Mapping[str, str]:
    """The environment of a process whose clock says what faketime makes of `clock`: "-1d", "@2028-02-29 23:59:50"."""
    return {"LD_PRELOAD": library(), "FAKETIME": clock, **more}


def drifting(times: int) -> Mapping[str, str]:
    """The wall clock runs so many times as fast, the monotonic one does not."""
    return lying(f"+0 x{times}", FAKETIME_DONT_FAKE_MONOTONIC="1")


@contextlib.contextmanager
def shared(clock: str) -> Iterator[Mapping[str, str]]:
    """The environment of processes that all have one such clock, whoever they run as, until the block ends."""
    keeper = subprocess.Popen([program(), "-f", clock, "sleep", "infinity"], preexec_fn=die_with_parent)  # noqa: PLW1509
    child = 0
    try:
        child, environment = _child(keeper.pid)
        for name in environment["FAKETIME_SHARED"].split():  # a semaphore and the moment when the clock began
            for place in (f"/dev/shm{name}", f"/dev/shm/sem.{name.removeprefix('/')}"):
                with contextlib.suppress(FileNotFoundError):
                    Path(place).chmod(0o666)
        yield environment
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child or keeper.pid, signal.SIGTERM)  # faketime tidies up when its child has ended
        keeper.wait(START_SECONDS)


@contextlib.contextmanager
def for_servers(environment: Mapping[str, str]) -> Iterator[None]:
    """Servers that are started in this block live by that clock."""
    clean = cluster.environment
    cluster.environment = lambda: {**clean(), **environment}
    try:
        yield
    finally:
        cluster.environment = clean


def _child(keeper: int) -> tuple[int, dict[str, str]]:
    """What faketime started, and its environment."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
            words = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
            found = {name: value for name, _, value in (word.partition("=") for word in words) if name in NAMES}
            if len(found) == len(NAMES):
                return int(child), found
        time.sleep(0.02)
    raise Missing("faketime does not start here")
