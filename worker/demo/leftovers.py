"""Folders that name the process they belong to, so that those of killed demos can be told and removed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.embedded.postmaster import alive

PREFIX = "worker-demo-"


def mine() -> str:
    """What the name of a folder of this demo begins with."""
    return f"{PREFIX}{os.getpid()}-"


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for the files of this demo, gone in the end; those that killed demos left go first."""
    for left in of_the_dead(Path(tempfile.gettempdir())):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=mine()) as made:
        yield Path(made)


def of_the_dead(home: Path) -> Iterator[Path]:
    """The folders of demos that do not run any more."""
    for folder in home.glob(f"{PREFIX}*-*"):
        with suppress(ValueError):
            if not alive(int(folder.name.removeprefix(PREFIX).partition("-")[0])):
                yield folder
