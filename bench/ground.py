"""The ground a measurement stands on: one server for a run, fresh databases, processes and their processor time."""

import asyncio
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from worker.embedded import Embedded, start
from worker.migrations import migrate

ROOT = Path(__file__).parent.parent
SQL = Path(__file__).parent / "sql"
SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "top",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "200",
}
TICK = os.sysconf("SC_CLK_TCK")


class Ground:
    """A server with fsync on, as it is for users, and room enough that no checkpoint falls into a run by chance."""

    def __init__(self, server: Embedded, folder: Path) -> None:
        self.server = server
        self.folder = folder

    @asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
        """A fresh database with the schema, the raw tables and the questions in it: its address, a connection."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        await self._maintain(f"create database {name}")
        dsn = self.server.dsn(name)
        await migrate(dsn)
        connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
        for file in ("raw.sql", "queue.sql"):
            await connection.execute((SQL / file).read_text())
        try:
            yield dsn, connection
        finally:
            await connection.close()
            await self._maintain(f"drop database {name} with (force)")

    async def _maintain(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def configure(self, jobs: str, worker: str) -> Path:
        """A worker.toml."""
        path = self.folder / f"{uuid.uuid4().hex[:8]}.toml"
        path.write_text(f'environment = "test"\n[database]\nsearch_path = "public"\n[worker]\n{worker}\n{jobs}\n')
        return path

    @asynccontextmanager
    async def process(self, dsn: str, *arguments: str) -> AsyncIterator[subprocess.Popen[bytes]]:
        """A Python process of its own, such as `-m worker run`; ended with the block."""
        environment = {**os.environ, "DATABASE_URL": dsn}
        with (self.folder / "said.log").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        try:
            yield process
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 30)

    def backends_cpu(self) -> float:
        """Seconds of processor time of all backends so far, the ended ones included."""
        return cpu_of_children(self.server.pid)


@contextmanager
def ground() -> Iterator[Ground]:
    """A server of this run."""
    with tempfile.TemporaryDirectory(prefix="worker-bench-") as folder:
        Path(folder).chmod(0o755)
        server = start(Path(folder) / "server", settings=SETTINGS, die_with_parent=True)
        try:
            yield Ground(server, Path(folder))
        finally:
            server.stop("immediate")


def cpu(pid: int) -> float:
    """Seconds of processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_of_children(pid: int) -> float:
    """The same of its children, those that live and those that were collected."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = (int(fields[13]) + int(fields[14])) / TICK
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            total += cpu(int(child))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def memory(pid: int) -> float:
    """MB that a process holds (Linux)."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
