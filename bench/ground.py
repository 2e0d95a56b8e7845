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
FILES = ("raw.sql", "queue.sql", "beside.sql", "graph.sql", "fanin.sql", "pages.sql")
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

    def __init__(self, server: Embedded, folder: Path, scale: float = 1.0) -> None:
        self.server = server
        self.folder = folder
        self.scale = scale
        self._said = folder / "said.log"

    def sized(self, full: int, least: int = 1) -> int:
        """A count at the scale of this run: smaller ones are for trials, and their figures for nobody."""
        return max(round(full * self.scale), least)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
        """A fresh database with the schema, the raw tables and the questions in it: its address, a connection."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        await self._maintain(f"create database {name}")
        dsn = self.server.dsn(name)
        await migrate(dsn)
        connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
        for file in FILES:
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
        with self._said.open("ab") as said:
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

    def said(self) -> str:
        """The end of what processes said."""
        return self._said.read_text(encoding="utf-8", errors="replace")[-2_000:] if self._said.exists() else ""

    def backends_cpu(self) -> float:
        """Seconds of processor time of all backends so far, the ended ones included."""
        return cpu_of_children(self.server.pid)


@contextmanager
def ground(scale: float = 1.0) -> Iterator[Ground]:
    """A server of this run."""
    with tempfile.TemporaryDirectory(prefix="worker-bench-") as folder:
        Path(folder).chmod(0o755)
        server = start(Path(folder) / "server", settings=SETTINGS, die_with_parent=True)
        try:
            yield Ground(server, Path(folder), scale)
        finally:
            server.stop("immediate")


def cpu(pid: int) -> float:
    """Seconds of processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_of_threads(pid: int) -> float:
    """The same to the nanosecond, without threads that have ended: for what costs less than a tick (Linux)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


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
