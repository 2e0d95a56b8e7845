"""Where an experiment takes place: a database, a folder for evidence, and daemons that come and go."""

import asyncio
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from tests.heart import becomes, write_config
from tests.processes import Daemon
from tests.stress.checker import CANARY, violations
from tests.stress.experiment import Report
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


class Place:
    """A database of its own and the daemons that work on it.

    Attributes:
        connection: the experiment's own; a server that ends takes it along, and `reconnect` makes another.
        chance: drawn from the run's seed.
    """

    def __init__(self, server: Embedded, dsn: str, folder: Path, connection: asyncpg.Connection, seed: int) -> None:
        self.server = server
        self.dsn = dsn
        self.folder = folder
        self.connection = connection
        self.chance = random.Random(seed)
        self.daemons: list[Daemon] = []
        self.killed: list[tuple[int, float]] = []  # (pid, when)
        self.most_memory = 0.0  # MB that any daemon was seen to hold

    def configure(self, jobs: str, worker: str = COMPRESSED) -> Path:
        """The worker.toml of this experiment; {folder} in it is the evidence's."""
        return write_config(self.folder, jobs.replace("{folder}", str(self.folder)), worker=worker)

    def spawn(
        self,
        config: Path,
        dsn: str | None = None,
        options: tuple[str, ...] = (),
        more: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Daemon:
        """One more daemon; `dsn` is another way to the database, as a proxy's; `more` is put into its environment."""
        log = self.folder / f"daemon-{len(self.daemons)}.log"
        daemon = Daemon(config, secretive(dsn or self.dsn), log, options, more, prefix=prefix)
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

    async def reconnect(self, seconds: float = START_SECONDS) -> None:
        """A new connection for the experiment, as soon as the server lets it in."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    self.connection = await asyncpg.connect(self.dsn, timeout=5)
                    return
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                    await asyncio.sleep(0.05)

    def memory(self) -> dict[int, float]:
        """MB that each living daemon holds, by pid (Linux)."""
        held = {}
        for each in self.daemons:
            with suppress(OSError, IndexError, ValueError):
                status = Path(f"/proc/{each.pid}/status").read_text()
                held[each.pid] = int(status.split("VmRSS:")[1].split()[0]) / 1024
        self.most_memory = max([self.most_memory, *held.values()])
        return held

    async def judge(self, report: Report, *but: str) -> None:
        """Stop the daemons, and let the checker decide; `but` names invariants that this experiment breaks itself."""
        self.memory()
        codes = await self.stopped()
        report.expect(set(codes) <= {0}, f"daemons ended with {codes}")
        report.stale_refused += self.count_said('"job.lost_claim"')
        report.stuck += await self.stuck()
        report.jobs = await self.connection.fetchval("select count(*) from worker.job_queue")
        report.figures["most_memory_mb"] = round(self.most_memory, 1)
        for violation in await violations(self.connection, *but, logs=[each.log for each in self.daemons]):
            report.faults.append(str(violation))
            report.violations += 1
            report.lost += len(violation.rows) if violation.invariant == "I1" else 0
            report.stale_accepted += len(violation.rows) if violation.invariant == "I3" else 0
            report.effects += len(violation.rows) if violation.invariant == "I7" else 0

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


def secretive(dsn: str) -> str:
    """The address with a password in it that nobody asks for, and that no log may hold."""
    url = urlsplit(dsn)
    user, at, host = url.netloc.rpartition("@")
    return dsn if ":" in user or not at else url._replace(netloc=f"{user}:{CANARY}@{host}").geturl()


@asynccontextmanager
async def place(
    server: Embedded, folder: Path, seed: int, migrated: Callable[[str], Awaitable[object]] = migrate
) -> AsyncIterator[Place]:
    """A fresh database with the schema and the evidence in it; whatever runs is ended with it.

    Args:
        migrated: what brings the schema into the database at an address; another release than this one, where needed.
    """
    name = f"stress_{uuid.uuid4().hex[:8]}"
    folder = folder / name
    folder.mkdir()
    maintenance = await asyncpg.connect(server.dsn())
    await maintenance.execute(f"create database {name}")
    await maintenance.close()
    await migrated(server.dsn(name))
    connection = await asyncpg.connect(server.dsn(name))
    await connection.execute((Path(__file__).parent / "evidence.sql").read_text())
    here = Place(server, server.dsn(name), folder, connection, seed)
    try:
        yield here
    finally:
        here.end()
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await here.connection.close(timeout=5)
