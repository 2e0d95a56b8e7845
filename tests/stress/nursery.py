"""Daemons in great number: each is forked from one process that has imported everything and done nothing yet."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.processes import Daemon, die_with_parent

PRELOADED = ["worker.cli.app", "worker.cli.reach", "worker.service", "worker.web", "uvloop", "tests.stress.jobs"]


class Nursling(Daemon):
    """A daemon that takes a fifth of the time to start; all that it does of its own is the same."""

    def __init__(self, context: ForkServerContext, config: Path, dsn: str, log: Path) -> None:
        self.log = log
        log.touch()
        born = context.Process(target=_live, args=(str(config), dsn, str(log)), daemon=True)
        born.start()
        self.process = _Process(born)


class Nursery:
    """Where they come from."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def spawn(self, config: Path, dsn: str, log: Path) -> Nursling:
        return Nursling(self._context, config, dsn, log)


class _Process:
    """As much of a Popen as a Daemon needs."""

    def __init__(self, born: BaseProcess) -> None:
        self._born = born
        assert born.pid is not None
        self.pid = born.pid

    def poll(self) -> int | None:
        return self._born.exitcode

    def wait(self, seconds: float) -> int:
        end = time.monotonic() + seconds
        self._born.join(seconds)
        code = self._born.exitcode
        if code is None:
            raise TimeoutError(f"{self.pid} is still there after {time.monotonic() - end + seconds:.0f} s")
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _live(config: str, dsn: str, log: str) -> None:
    die_with_parent()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ["DATABASE_URL"] = dsn
    os.environ.pop("PORT", None)
    from worker.cli.app import app

    app(["run", "--config", config], prog_name="worker")


@contextlib.contextmanager
def nursery() -> Iterator[Nursery]:
    """Daemons end with the process that asked for them."""
    yield Nursery()
