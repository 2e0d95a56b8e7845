"""Real daemons as processes of their own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support import ROOT

PR_SET_PDEATHSIG = 1
MODULE = ("worker", "run")
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """In the child, before exec: be killed when the one who started us is gone."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def command(config: Path) -> list[str]:
    """What starts a daemon."""
    return [sys.executable, "-m", *MODULE, "--config", str(config)]


class Daemon:
    """One process; everything it says goes to a file.

    Args:
        more: put into its environment.
        prefix: a command that becomes this one, as `ip netns exec NAME` does.
    """

    def __init__(
        self,
        config: Path,
        dsn: str,
        log: Path,
        options: tuple[str, ...] = (),
        more: Mapping[str, str] | None = None,
        *,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.log = log
        environment = {**os.environ, "DATABASE_URL": dsn, "PYTHONUNBUFFERED": "1", **(more or {})}
        environment.pop("PORT", None)
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*prefix, *command(config), *options], cwd=ROOT, env=environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, nothing that takes a lock
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and its end awaited."""
        self.process.kill()
        self.process.wait(10)

    def ends(self, seconds: float = 40.0) -> int:
        """Its exit code; what it said when it does not end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process {self.pid} does not end; it said:\n{self.said()[-4000:]}") from None

    def says(self, text: str, seconds: float = 40.0) -> None:
        """Wait for a text in its log."""
        end = time.monotonic() + seconds
        while text not in self.said():
            ended = self.process.poll()
            if ended is not None or time.monotonic() > end:
                raise AssertionError(f"no {text!r}, exit code {ended}; it said:\n{self.said()[-4000:]}")
            time.sleep(0.02)


class Fleet:
    """Daemons that end with the test."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self._folder = folder
        self._dsn = dsn
        self.daemons: list[Daemon] = []

    def start(
        self, config: Path, *, dsn: str | None = None, wait: bool = True, options: tuple[str, ...] = ()
    ) -> Daemon:
        """One more daemon, ready to claim unless it is not waited for."""
        started = Daemon(config, dsn or self._dsn, self._folder / f"daemon-{len(self.daemons)}.log", options)
        self.daemons.append(started)
        if wait:
            started.says("service.started")
        return started

    def end(self) -> None:
        for each in self.daemons:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
                each.kill()


@contextmanager
def fleet(folder: Path, dsn: str) -> Iterator[Fleet]:
    """A place to start daemons in; none outlives it."""
    daemons = Fleet(folder, dsn)
    try:
        yield daemons
    finally:
        daemons.end()
