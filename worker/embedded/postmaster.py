"""What can be known of a postmaster from outside: its pid file, its process, its socket."""

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Postmaster:
    """The lines of a postmaster.pid."""

    pid: int
    port: int
    sockets: str
    addresses: str
    ready: bool

    def answers(self) -> bool:
        """Whether somebody listens on its socket. That is life, not readiness: in recovery it answers and refuses."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_SECONDS)
            try:
                client.connect(f"{self.sockets}/.s.PGSQL.{self.port}")
            except OSError:
                return False
            return True


def read(cluster: Path) -> Postmaster | None:
    """The postmaster of a cluster as its pid file tells; the file outlives one that was killed."""
    try:
        lines = [line.strip() for line in (cluster / "postmaster.pid").read_text().splitlines()]
        return Postmaster(int(lines[0]), int(lines[3]), lines[4], lines[5], ready=lines[7:8] == ["ready"])
    except (FileNotFoundError, IndexError, ValueError):  # not there, or being written
        return None


def alive(pid: int) -> bool:
    """Whether the process lives; a dead child of ours is collected on the way, as PostgreSQL takes it for living."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
