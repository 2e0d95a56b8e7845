"""Where an experiment takes place: a database, a folder for evidence, and daemons that come and go."""

import asyncio
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from tests.heart import becomes, write_config
from tests.processes import Daemon
from worker.embedded import Embedded
from worker.migrations import migrate

COMPRESSED = """
poll = "500ms"
beat = "100ms"
fence = "300ms"
missing = "500ms"
lease = "3s"
grace = "5s"
concurrency = 8
prefetch = 8
"""
START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass
class Experiment:
    """What one experiment came to.

    Attributes:
        lost: jobs that are not final, or said to be done by nobody.
        recovery: seconds from each kill to what made up for it, at default settings.
        stuck: seconds from each kill to the rescue of what it stranded.
        faults: sentences; empty = passed.
    """

    id: str
    planned: int
    injected: int = 0
    lost: int = 0
    duplicates: int = 0
    stale_accepted: int = 0
    stale_refused: int = 0
    recovery: list[float] = field(default_factory=list)
    stuck: list[float] = field(default_factory=list)
    jobs: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults and self.injected >= self.planned

    def expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.faults.append(otherwise)


class Place:
    """A database of its own and the daemons that work on it."""

    def __init__(self, dsn: str, folder: Path, connection: asyncpg.Connection, seed: int) -> None:
        self.dsn = dsn
        self.folder = folder
        self.connection = connection
        self.chance = random.Random(seed)
        self.daemons: list[Daemon] = []
        self.killed: list[tuple[int, float]] = []  # (pid, when)

    def configure(self, jobs: str, worker: str = COMPRESSED) -> Path:
        """The worker.toml of this experiment; {folder} in it is the evidence's."""
        return write_config(self.folder, jobs.replace("{folder}", str(self.folder)), worker=worker)

    def spawn(self, config: Path) -> Daemon:
        daemon = Daemon(config, self.dsn, self.folder / f"daemon-{len(self.daemons)}.log")
        self.daemons.append(daemon)
        return daemon

    async def started(self, *daemons: Daemon) -> None:
        """Wait until they claim."""
        for daemon in daemons:
            async with asyncio.timeout(START_SECONDS):
                while "service.started" not in daemon.said():
                    if daemon.process.poll() is not None:
                        raise RuntimeError(f"a daemon ended: {daemon.said()[-2000:]}")
                    await asyncio.sleep(0.02)

    def alive(self) -> list[Daemon]:
        """Those that run and claim."""
        return [each for each in self.daemons if each.process.poll() is None and "service.started" in each.said()]

    def kill(self, victim: Daemon) -> None:
        self.killed.append((victim.pid, time.time()))
        victim.kill()

    async def kills(self, count: int, config: Path, pause: float, least: int) -> int:
        """Kill a random one about every `pause` seconds and start another; answers with how many were killed."""
        for _ in range(count):
            await asyncio.sleep(pause * self.chance.uniform(0.5, 1.5))
            await becomes(lambda: len(self.alive()) >= least, START_SECONDS)
            self.kill(self.chance.choice(self.alive()))
            self.spawn(config)
        return count

    async def settled(self, seconds: float) -> bool:
        """Wait until every job is final."""
        end = time.monotonic() + seconds
        open_jobs = "select exists (select from worker.job_queue where status in ('pending', 'running'))"
        while await self.connection.fetchval(open_jobs):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.05)
        return True

    async def stopped(self) -> list[int]:
        """SIGTERM for all; the exit codes of those that were alive."""
        alive = [each for each in self.daemons if each.process.poll() is None]
        await self.started(*alive)  # before that, SIGTERM finds a Python that is still importing
        for each in alive:
            each.send(signal.SIGTERM)
        with suppress(TimeoutError):
            await becomes(lambda: all(each.process.poll() is not None for each in alive), STOP_SECONDS)
        return [-1 if (code := each.process.poll()) is None else code for each in alive]

    def count_said(self, text: str) -> int:
        return sum(each.said().count(text) for each in self.daemons)

    async def stuck(self) -> list[float]:
        """From each kill to each rescue of what the killed one ran."""
        rescues = await self.connection.fetch(
            "select p.pid, extract(epoch from e.at)::float8 as at from worker.job_event e"
            " join worker.process p on p.id = (e.detail ->> 'process')::bigint where e.event = 'rescue'"
        )
        when = dict(self.killed)
        return [found["at"] - when[found["pid"]] for found in rescues if found["pid"] in when]

    def end(self) -> None:
        for each in self.daemons:
            if each.process.poll() is None:
                each.send(signal.SIGCONT)
                each.kill()


@asynccontextmanager
async def place(server: Embedded, folder: Path, seed: int) -> AsyncIterator[Place]:
    """A fresh database with the schema in it; whatever runs is ended with it."""
    name = f"stress_{uuid.uuid4().hex[:8]}"
    folder = folder / name
    folder.mkdir()
    maintenance = await asyncpg.connect(server.dsn())
    await maintenance.execute(f"create database {name}")
    await maintenance.close()
    await migrate(server.dsn(name))
    connection = await asyncpg.connect(server.dsn(name))
    here = Place(server.dsn(name), folder, connection, seed)
    try:
        yield here
    finally:
        here.end()
        await connection.close(timeout=5)
