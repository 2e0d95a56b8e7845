"""Releases of this program side by side: the one before the newest migration, this one, and one that is to come."""

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from tests.heart import write_config
from tests.processes import Daemon
from tests.stress.experiment import Missing
from tests.stress.place import Place, secretive
from tests.support import ROOT
from worker import edition, migrations
from worker.edition import Edition

MIGRATE_SECONDS = 120
TO_COME = """
set local role worker_owner;
alter table worker.job_queue add column region text;
create table worker.region (name text primary key);
"""
EDITION = Path("sql", "functions", "05_edition.sql")
PARTS = ("worker", "sql", "tests")


class Ended(NamedTuple):
    code: int
    said: str


class Release(NamedTuple):
    """A folder with all of a release in it; it runs on the Python and the libraries that this one has."""

    folder: Path

    def edition(self) -> Edition | None:
        """None: from before there were editions, when any difference was a reason to refuse."""
        file = self.folder / EDITION
        return edition.told(file.read_text(encoding="utf-8")) if file.exists() else None

    def works_on(self, schema: "Release") -> bool:
        """Whether it is meant to work on the schema of a later one."""
        mine, theirs = self.edition(), schema.edition()
        return mine is not None and theirs is not None and theirs.serves <= mine.number

    def spawn(self, place: Place, config: Path) -> Daemon:
        """One more daemon, of this release."""
        return place.spawn(config, prefix=("env", "-C", str(self.folder)))

    async def migrate(self, dsn: str, config: Path | None = None) -> Ended:
        """`worker migrate` of this release, to its end."""
        migrating = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "worker", "migrate", "--config", config or write_config(self.folder, ""),
            cwd=self.folder, env={**os.environ, "DATABASE_URL": secretive(dsn)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(migrating.communicate(), MIGRATE_SECONDS)
        finally:
            if migrating.returncode is None:
                migrating.kill()
        assert migrating.returncode is not None
        return Ended(migrating.returncode, said.decode())


def this(folder: Path) -> Release:
    """This one as it is now, whatever is edited in it meanwhile."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return Release(folder)


def former(folder: Path) -> Release:
    """The commit before the newest migration came, from this repository's history.

    Raises:
        Missing: there is no history here, or not enough of it.
    """
    newest = f"sql/{migrations.files('migrations')[-1].name}"
    added = _git("log", "--diff-filter=A", "--format=%H", "--", newest).decode().split()
    commit = f"{added[-1]}^" if added else "HEAD"  # not committed yet: what is committed is the one before
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, "--", *PARTS))) as archive:
        archive.extractall(folder, filter="data")
    return Release(folder)


def to_come(before: Release, folder: Path, *, breaks: bool) -> Release:
    """A release with one more migration and changed functions; or one that does not serve that release any more."""
    shutil.copytree(before.folder, folder)
    number, serves = before.edition() or edition.NONE
    later = f"select {number + 1}, {number + 1 if breaks else serves}"
    file = folder / EDITION
    text, changed = re.subn(rf"select {number}, {serves}", later, file.read_text(encoding="utf-8"))
    assert changed == 1
    file.write_text(text, encoding="utf-8")
    (folder / "sql" / "migrations" / "9000_to_come.sql").write_text(TO_COME, encoding="utf-8")
    return Release(folder)


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Missing(f"no release from before the newest migration: git {arguments[0]} fails") from error
