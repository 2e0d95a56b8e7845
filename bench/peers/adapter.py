"""One queue's processes, seen from outside: started, waited for, ended."""

import asyncio
import ctypes
import json
import os
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.ground import ROOT, Ground, cpu
from bench.peers.catalogue import Entry
from bench.peers.install import Installed

PRODUCER = "bench-producer"
SQL = Path(__file__).parent / "sql"
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
BACKENDS = "select pid from pg_stat_activity where application_name = $1"


class TooSlowError(Exception):
    """A queue did not finish in time, or its process ended; what it said last."""


@dataclass(frozen=True)
class Work:
    """A worker's process, and the report that its handlers write once all jobs have begun."""

    process: Process
    report: Path

    async def begun(self, seconds: float) -> None:
        """Until the first handler has begun."""
        await self._file(self.report.with_suffix(".first"), seconds)

    async def told(self, seconds: float) -> dict[str, Any]:
        """What its `Tally` wrote."""
        await self._file(self.report, seconds)
        return json.loads(self.report.read_text())  # type: ignore[no-any-return]

    async def _file(self, path: Path, seconds: float) -> None:
        async def there() -> None:
            while not _is_there(path):
                if self.process.returncode is not None:
                    raise TooSlowError(f"its worker ended with {self.process.returncode}")
                await asyncio.sleep(0.005)

        try:
            await asyncio.wait_for(there(), seconds)
        except TimeoutError:
            raise TooSlowError(f"not done within {seconds:.0f} s") from None


class Adapter:
    """A queue that is installed, on the ground of this run."""

    def __init__(self, entry: Entry, how: Installed, ground: Ground) -> None:
        self.entry = entry
        self.version = how.version
        self._how = how
        self._ground = ground

    @asynccontextmanager
    async def database(self) -> AsyncIterator[tuple[str, asyncpg.Connection]]:
        """A fresh database with the queue's tables."""
        async with self._ground.database() as (dsn, connection):
            await connection.execute((SQL / "raw.sql").read_text())
            await self._said("install", dsn)
            yield dsn, connection

    async def enqueue(self, dsn: str, one_by_one: int, in_bulk: int) -> dict[str, float]:
        """Jobs a second, by `enqueue` and `enqueue_many`; puts in a few more, to be warm."""
        return json.loads(await self._said("enqueue", dsn, str(one_by_one), str(in_bulk)))  # type: ignore[no-any-return]

    @asynccontextmanager
    async def worker(self, dsn: str, jobs: int, *, holds: bool = False) -> AsyncIterator[Work]:
        """A worker that reports once it has begun so many jobs; killed with the block."""
        report = self._ground.folder / f"{uuid.uuid4().hex}.json"
        told = {"BENCH_REPORT": str(report), "BENCH_JOBS": str(jobs), "BENCH_HOLD": "1" if holds else ""}
        async with self._process(told, "work", dsn) as process:
            yield Work(process, report)

    @asynccontextmanager
    async def stream(self, dsn: str, jobs: int, rate: int) -> AsyncIterator[Process]:
        """One job at once; after a line on its standard input the stream."""
        apart = f"{dsn}{'&' if '?' in dsn else '?'}application_name={PRODUCER}"
        async with self._process({"PGAPPNAME": PRODUCER}, "stream", apart, str(jobs), str(rate)) as process:
            yield process

    @asynccontextmanager
    async def _process(self, told: dict[str, str], *arguments: str) -> AsyncIterator[Process]:
        settings = {"BENCH_SETTINGS": json.dumps(self.entry.settings), "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, **self._how.environment, **settings, **told}
        with self.log.open("ab") as log:
            stdout = log if arguments[0] == "work" else PIPE  # nobody reads a worker's, and a full pipe would stop it
            process = await asyncio.create_subprocess_exec(
                *self._how.command, *arguments, cwd=ROOT, env=environment, stdin=PIPE, stdout=stdout, stderr=log,
                preexec_fn=_die_with_parent,  # one prctl, nothing that takes a lock
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _said(self, *arguments: str) -> bytes:
        async with self._process({}, *arguments) as process:
            try:
                said, _ = await asyncio.wait_for(process.communicate(), 120)
            except TimeoutError:
                raise TooSlowError(f"{arguments[0]}: not done within 120 s") from None
            if process.returncode:
                raise TooSlowError(f"{arguments[0]}: {self.last_words()}")
        return said

    @property
    def log(self) -> Path:
        """Where its processes' standard errors go."""
        return self._ground.folder / f"{self.entry.name}.log"

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


def _die_with_parent() -> None:
    """Linux alone; elsewhere a worker whose measurement was killed ends when its database has gone."""
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _is_there(path: Path) -> bool:
    return path.exists()


async def producers_cpu(connection: asyncpg.Connection) -> float:
    """Seconds of processor time of the backends that serve a producer."""
    return sum(cpu(row["pid"]) for row in await connection.fetch(BACKENDS, PRODUCER))
