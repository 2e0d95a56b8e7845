"""What several tests need and no test is about."""

import contextlib
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

from worker.embedded import Embedded
from worker.embedded.postmaster import alive, read
from worker.errors import EmbeddedError

ROOT = Path(__file__).resolve().parent.parent
PLACE = Path("/tmp")  # short enough for a socket, and open to `nobody` when the tests run as root
MEMORY = Path("/dev/shm")  # so is this; a database is made there in a seventh of the time
ROOM = 8 * 2**30  # bytes that must be free in it
NAME = "worker-tests"


@contextlib.contextmanager
def server_folder(brief: bool = False) -> Iterator[Path]:
    """The path of a folder that is not there yet, for a server's data; afterwards both are gone.

    Args:
        brief: the data need no disk, and are held in memory where there is room.
    """
    sweep()
    place = MEMORY if brief and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM else PLACE
    folder = place / f"{NAME}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        yield folder
    finally:
        end_server(folder)
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove what test runs left behind that were killed."""
    for folder in (folder for place in (PLACE, MEMORY) for folder in place.glob(f"{NAME}-*-*")):
        with contextlib.suppress(ValueError):
            if not alive(int(folder.name.split("-")[2])):
                end_server(folder)
                shutil.rmtree(folder, ignore_errors=True)


def end_server(folder: Path) -> None:
    """Kill the server that a test left running."""
    found = read(folder / "cluster")
    if found and alive(found.pid) and found.answers():
        with contextlib.suppress(EmbeddedError):
            Embedded.start(folder).stop("immediate")


def free_port() -> int:
    """A TCP port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
