"""A daemon as the first process of a PID namespace, as in a container."""

import asyncio
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.heart import becomes
from tests.processes import Daemon, command, die_with_parent
from tests.stress.experiment import Missing
from tests.stress.place import Place
from tests.support import ROOT

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


class Contained(Daemon):
    """A daemon behind `unshare`, whose exit code is passed on.

    Attributes:
        first: the pid, seen from here, of the namespace's process 1.
    """

    def __init__(self, config: Path, dsn: str, log: Path) -> None:
        self.log = log
        environment = {**os.environ, "DATABASE_URL": dsn, "PYTHONUNBUFFERED": "1"}
        environment.pop("PORT", None)
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*UNSHARE, *command(config)], cwd=ROOT, env=environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, nothing that takes a lock
            )  # fmt: skip
        self.first = 0

    def send(self, number: int) -> None:
        """To process 1, as a container's runtime does."""
        os.kill(self.first, number)

    async def begun(self) -> None:
        """Wait for process 1."""
        await becomes(lambda: children(self.process.pid))
        (self.first,) = children(self.process.pid)

    async def ended(self, seconds: float) -> int | None:
        """The exit code, or None when it is still there."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return self.process.poll()


def contained(place: Place, config: Path) -> Contained:
    """One more daemon of a place, in a namespace of its own."""
    daemon = Contained(config, place.dsn, place.folder / f"daemon-{len(place.daemons)}.log")
    place.daemons.append(daemon)
    return daemon


def needs_namespaces() -> None:
    """Raises Missing where processes may not be put into a namespace."""
    if shutil.which("unshare") is None:
        raise Missing("unshare is not here")
    if subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False, timeout=20).returncode != 0:
        raise Missing("no right to make a PID namespace")


def children(pid: int) -> list[int]:
    """Pids of the living and of the dead that nobody has reaped."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return []


def state(pid: int) -> str:
    """One letter; Z for the dead that nobody has reaped."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    return ""


def descendants(pid: int) -> list[int]:
    """All below a process."""
    below = children(pid)
    return below + [each for child in below for each in descendants(child)]
