"""A daemon and an exporter as processes, every interval of theirs divided."""

import os
import subprocess
import sys
from pathlib import Path

from tests.deploy.monitor import DAEMONS, EXPORTER
from tests.processes import die_with_parent
from tests.support import ROOT, free_port
from worker.config import load


def write(folder: Path, port: int, by: int, jobs: str = "") -> Path:
    """A worker.toml that listens; the lease is the default, divided."""
    path = folder / "worker.toml"
    worker = f'beat = "100ms"\nfence = "500ms"\nmissing = "1s"\nlease = "{default_lease() * 1000 / by:.0f}ms"'
    path.write_text(
        f'environment = "test"\n[worker]\n{worker if by > 1 else ""}\n[http]\nlisten = "127.0.0.1:{port}"\n{jobs}',
        encoding="utf-8",
    )
    return path


def default_lease() -> float:
    """Seconds until a silent process is dead, where nobody says otherwise."""
    return load(ROOT / "worker.toml", {"DATABASE_URL": "postgresql://h/d"}).worker.lease


class Commands:
    """Processes of the command line that end with the test."""

    def __init__(self, folder: Path, dsn: str, by: int) -> None:
        self._folder, self._dsn, self._by = folder, dsn, by
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"command-{len(self._started)}.log").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.hurried", str(self._by), *arguments], cwd=ROOT,
                env={**os.environ, "DATABASE_URL": self._dsn}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, nothing that takes a lock
            )  # fmt: skip
        self._started.append(process)
        return process

    def pair(self, jobs: str = "") -> tuple["subprocess.Popen[bytes]", dict[str, int]]:
        """A daemon and an exporter; the daemon, and the ports of both by scrape job."""
        ports = {DAEMONS: free_port(), EXPORTER: free_port()}
        config = str(write(self._folder, ports[DAEMONS], self._by, jobs))
        daemon = self.start("run", "--config", config)
        self.start("exporter", "--listen", f"127.0.0.1:{ports[EXPORTER]}", "--config", config)
        return daemon, ports

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait(10)
