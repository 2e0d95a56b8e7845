"""One daemon alone on a stage: a job type of its own, its own way to the database, and a receiver of webhooks."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.heart import becomes, write_config
from tests.processes import Daemon
from tests.stress.experiment import Report
from tests.stress.fault_proxy import FaultProxy, Link, faulty
from tests.stress.inbox import Inbox, inbox
from tests.stress.place import COMPRESSED, Place

QUICK = 2.5  # seconds in which a daemon with nothing to wait for is gone, on a busy machine
PYTHON = '[job.{name}]\npython = "{target}"\nsettings = {{ folder = "{folder}" }}'


class Stage:
    """One daemon, alone with its job type, and its own way to the database."""

    def __init__(
        self, place: Place, report: Report, name: str, *, connection: asyncpg.Connection, proxy: FaultProxy, box: Inbox
    ) -> None:
        self.place, self.report, self.name = place, report, name
        self.connection, self.proxy, self.box = connection, proxy, box
        self.daemon: Daemon
        self._reached = {"before": asyncio.Event(), "after": asyncio.Event()}
        self._open = {"before": asyncio.Event(), "after": asyncio.Event()}

    async def start(
        self, text: str = PYTHON, *, target: str = "tests.stress.jobs:free", grace: str = "5s", wait: bool = True
    ) -> None:
        """A daemon that runs jobs of the type named like this stage."""
        named = text.format(name=self.name, target=target, folder=self.place.folder, url=self.box.url)
        folder = self.place.folder / self.name
        folder.mkdir(exist_ok=True)
        config = write_config(folder, named, worker=COMPRESSED.replace('grace = "5s"', f'grace = "{grace}"'))
        self.daemon = self.place.spawn(config, self.proxy.dsn)
        if wait:
            await self.place.started(self.daemon)

    async def enqueue(self, ms: int = 0) -> int:
        return await self.connection.fetchval(
            "select worker.enqueue($1, jsonb_build_object('ms', $2::int))", self.name, ms
        )

    async def running(self, ms: int) -> int:
        """A job whose coroutine runs; the row alone would only say that it was claimed."""
        job_id = await self.enqueue(ms)
        await becomes((self.place.folder / f"job-{job_id}").exists)
        return job_id

    def hold(self, text: bytes) -> None:
        """Stop such statements on their way: `before` the server has them, and `after` it has committed them."""

        async def told(moment: str, link: Link, statement: bytes) -> bool:
            if text in statement:
                self._reached[moment].set()
                await self._open[moment].wait()
            return False

        self.proxy.on_statement = told

    async def reached(self, moment: str) -> None:
        async with asyncio.timeout(20):
            await self._reached[moment].wait()

    def open(self, *moments: str) -> None:
        for moment in moments:
            self._open[moment].set()

    async def stop(self, within: float, held: float = 0.0) -> float:
        """SIGTERM; what is held goes on so many seconds later. It has to end with 0 in time, and is timed."""
        self.daemon.send(signal.SIGTERM)
        self.report.injected += 1
        seconds = await self.ends(within, held)
        self.report.figures[f"{self.name}_s"] = round(seconds, 2)
        return seconds

    async def ends(self, within: float, held: float = 0.0) -> float:
        """Seconds until it has ended by itself, with 0."""
        began = time.monotonic()
        await asyncio.sleep(held)
        self.open("before", "after")
        within *= self.report.slack
        code = await ended(self.daemon, within + 20)
        seconds = time.monotonic() - began
        self.expect(code == 0, f"ended with {code}")
        self.expect(seconds <= within, f"took {seconds:.1f} s to end, more than {within:g} s")
        return seconds

    async def became(self, job_id: int, status: str, attempt: int) -> None:
        """What the job has to be by now; then it is out of the way."""
        row = await self.connection.fetchrow("select * from worker.job_queue where id = $1", job_id)
        found = (row["status"], row["attempt"])
        self.expect(found == (status, attempt), f"its job is {found}, not {(status, attempt)}")
        if row["status"] in ("pending", "running"):
            await self.connection.execute("select worker.cancel($1)", job_id)

    async def cleared(self) -> None:
        """Cancel what a scene that broke off leaves behind: the checker is to judge whole ones."""
        await self.connection.execute(
            "select worker.cancel(id) from worker.job_queue where job_type = $1 and status in ('pending', 'running')",
            self.name,
        )

    def expect(self, true: bool, otherwise: str) -> None:
        self.report.expect(true, f"{self.name}: {otherwise}")


async def ended(daemon: Daemon, seconds: float) -> int | None:
    """The exit code, or None when it is still there."""
    end = time.monotonic() + seconds
    while daemon.process.poll() is None and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return daemon.process.poll()


@asynccontextmanager
async def staged(place: Place, report: Report, name: str) -> AsyncIterator[Stage]:
    """A stage with a connection, a proxy and a receiver of its own."""
    connection = await asyncpg.connect(place.dsn)
    try:
        async with faulty(place.dsn) as proxy, inbox() as box:
            yield Stage(place, report, name, connection=connection, proxy=proxy, box=box)
    finally:
        await connection.close(timeout=5)
