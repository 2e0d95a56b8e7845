"""When the watchdog bites, when it must not, and what systemd is fed."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from tests.heart import becomes, configured, daemon, enqueue, until, write_config
from tests.proxy import proxied
from tests.support import ROOT
from worker import parts, watchdog
from worker.cli import exits
from worker.errors import Stuck
from worker.notify import watchdog_seconds
from worker.poller import Poller
from worker.stop import Stop
from worker.watchdog import EXIT_CODE, Watchdog, Watched, place

JOBS = '[job.echo]\npython = "tests.sample_jobs:echo"\n[job.wait]\npython = "tests.sample_jobs:wait"\n'
QUICK = 'poll = "100ms"\nbeat = "50ms"\nfence = "300ms"\nmissing = "600ms"\nlease = "3s"\ngrace = "200ms"\n'
DONE = "select status = 'completed' from worker.job_queue where id = $1"


class Process:
    """One whose state is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns, self.database, self.now, self.probes = True, True, 1000.0, 0
        monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(watchdog, "LOOSE_SECONDS", 3600.0)
        self.stop = Stop()
        self.dog = Watchdog(self.stop, 0.0)
        self.dog.watch(Watched(lambda: self.turns, self.could_claim, lambda: {"stands": "claims"}))

    async def could_claim(self) -> bool:
        self.probes += 1
        return self.database

    async def looks(self, seconds: float) -> None:
        """Time goes by, with a look every five seconds."""
        for _ in range(int(seconds / 5)):
            self.now += 5
            await self.dog.look()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


async def test_it_bites_when_claims_stand_still_and_the_database_answers(process: Process) -> None:
    process.turns = False
    await process.looks(60)
    assert not process.dog.bitten
    assert not process.dog.well
    with structlog.testing.capture_logs() as lines:
        await process.looks(10)
    assert process.dog.bitten
    assert process.stop.asked.is_set()
    assert [(line["event"], line["stands"], line["log_level"]) for line in lines] == [
        ("service.watchdog", "claims", "error")
    ]


async def test_it_asks_nobody_while_claims_go_round(process: Process) -> None:
    await process.looks(3600)
    assert (process.dog.bitten, process.dog.well, process.probes) == (False, True, 0)


async def test_an_outage_is_no_reason_however_long(process: Process) -> None:
    process.turns = process.database = False
    await process.looks(36_000)
    assert (process.dog.bitten, process.dog.well) == (False, True)
    process.database = True  # it is back, and the loop takes its time
    await process.looks(60)
    process.turns = True
    await process.looks(3600)
    assert not process.dog.bitten


async def test_a_database_that_comes_and_goes_is_no_reason(process: Process) -> None:
    process.turns = False
    for _ in range(50):
        process.database = True
        await process.looks(55)
        process.database = False
        await process.looks(5)
    assert not process.dog.bitten


async def test_what_is_not_watched_is_not_bitten(process: Process) -> None:
    process.turns = False
    await process.looks(50)
    process.dog.end()  # it drains
    await process.looks(3600)
    assert (process.dog.bitten, process.dog.well) == (False, True)


async def test_a_life_that_ends_during_the_probe_is_not_bitten(process: Process) -> None:
    async def end_first() -> bool:
        process.dog.end()
        return True

    process.dog.watch(Watched(lambda: False, end_first, dict))
    await process.looks(3600)
    assert (process.dog.bitten, process.dog.well) == (False, True)


def test_the_code_is_the_one_that_is_listed() -> None:
    assert EXIT_CODE == exits.WATCHDOG


async def test_where_a_task_waits() -> None:
    poller = Poller.__new__(Poller)
    poller._gate = asyncio.Event()
    waiting = asyncio.create_task(poller.room())
    await asyncio.sleep(0)
    assert place(waiting).startswith("poller.py:")
    assert place(waiting).endswith(" room")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert place(waiting) == "nowhere"


@pytest.mark.parametrize(
    ("given", "pid", "seconds"),
    [("180000000", "", 180.0), ("500000", "me", 0.5), ("500000", "1", None), ("", "", None), ("0", "", None),
     ("soon", "", None)],
)  # fmt: skip
def test_what_systemd_asks_for(monkeypatch: pytest.MonkeyPatch, given: str, pid: str, seconds: float | None) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", given)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "me" else pid)
    assert watchdog_seconds() == seconds


async def test_systemd_is_fed_only_while_all_is_well(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[str] = []
    monkeypatch.setattr(watchdog, "notify", fed.append)
    monkeypatch.setattr(watchdog, "watchdog_seconds", lambda: 0.03)
    monkeypatch.setattr(watchdog, "LOOK_EVERY", 0.005)
    running = asyncio.create_task(process.dog.run())
    try:
        await becomes(lambda: len(fed) >= 3)
        process.turns = False
        await becomes(lambda: not process.dog.well)
        fed.clear()
        await asyncio.sleep(0.1)
        assert fed == []
        process.database = False  # an outage: not our fault
        await becomes(lambda: len(fed) >= 3)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert set(fed) == {"WATCHDOG=1"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(watchdog, "BITE_SECONDS", 0.3)
    monkeypatch.setattr(parts, "ROUND_SECONDS", 0.2)


@pytest.mark.usefixtures("impatient")
async def test_a_daemon_whose_claims_hang_ends_and_hands_back(dsn, tmp_path, connection, monkeypatch) -> None:
    look, hangs = Poller.look, False

    async def looks(self, room):
        if hangs:
            await asyncio.Event().wait()
        return await look(self, room)

    monkeypatch.setattr(Poller, "look", looks)
    with structlog.testing.capture_logs() as lines, pytest.raises(Stuck):  # noqa: PT012
        async with daemon(configured(tmp_path, dsn, JOBS, worker=QUICK)) as (_, task, _):
            held = await enqueue(connection, "wait")
            await until(connection, "select status = 'running' from worker.job_queue where id = $1", held)
            hangs = True
            await asyncio.wait({task}, timeout=20)
    bitten = [line for line in lines if line["event"] == "service.watchdog"]
    assert [(line["stands"], line["in_hand"], line["lease_held"]) for line in bitten] == [("claims", 1, True)]
    assert "poller.py" in bitten[0]["at"]
    found = await connection.fetchrow("select status, attempt from worker.job_queue where id = $1", held)
    assert tuple(found) == ("pending", 0)
    assert await connection.fetchval("select count(*) from worker.process where stopped_at is null") == 0


@pytest.mark.usefixtures("impatient")
async def test_a_daemon_is_not_bitten_for_what_is_nobodys_fault(dsn, tmp_path, connection) -> None:
    """A full house with a long handler, a paused queue, a server that refuses claims, and one that is away."""
    with structlog.testing.capture_logs() as lines:
        async with proxied(dsn) as proxy:
            full = configured(tmp_path, proxy.dsn, JOBS, worker=QUICK + "concurrency = 1\nprefetch = 0\n")
            async with daemon(full) as (_, task, _):
                held = await enqueue(connection, "wait")
                await until(connection, "select status = 'running' from worker.job_queue where id = $1", held)
                await asyncio.sleep(1)
                await connection.execute("select worker.cancel($1)", held)
                await connection.execute("update worker.job_type set paused = true")
                await asyncio.sleep(1)
                await connection.execute("update worker.job_type set paused = false")
                async with connection.transaction():
                    await connection.execute("lock table worker.job_queue in access exclusive mode")
                    await asyncio.sleep(1)
                proxy.refusing = True
                proxy.drop()
                await asyncio.sleep(1)
                proxy.refusing = False
                await until(connection, DONE, await enqueue(connection, "echo"))
                assert not task.done()
    assert [line for line in lines if line["event"] == "service.watchdog"] == []


@pytest.mark.usefixtures("impatient")
async def test_a_fenced_process_that_never_hears_of_its_lease_again_is_bitten(
    dsn, tmp_path, connection, monkeypatch
) -> None:
    monkeypatch.setattr(Poller, "open", lambda self: None)  # the word gets lost
    async with proxied(dsn) as proxy:
        with pytest.raises(Stuck):  # noqa: PT012 - where it comes from is the point
            async with daemon(configured(tmp_path, proxy.dsn, JOBS, worker=QUICK)) as (_, task, _):
                proxy.refusing = True
                proxy.drop()
                await asyncio.sleep(0.6)
                proxy.refusing = False
                await asyncio.wait({task}, timeout=20)


HANGING = """
import asyncio
from worker import parts, watchdog
from worker.poller import Poller
watchdog.LOOK_EVERY, watchdog.BITE_SECONDS, watchdog.LOOSE_SECONDS, parts.ROUND_SECONDS = 0.05, 0.3, {loose}, 0.2
async def look(self, room):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if not {deaf}:
                raise
Poller.look = look
from worker.cli import main
main()
"""


@pytest.mark.parametrize("deaf", [False, True])
def test_the_exit_code_of_a_real_process(dsn: str, tmp_path: Path, connection: object, deaf: bool) -> None:
    """Also when the loop cannot even be brought to an end."""
    config = write_config(tmp_path, JOBS, worker=QUICK)
    code = HANGING.format(loose=0.5 if deaf else 60, deaf=deaf)
    command = [sys.executable, "-c", code, "run", "--config", str(config)]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "DATABASE_URL": dsn}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ended.returncode == exits.WATCHDOG, ended.stderr
    assert '"event":"service.watchdog"' in ended.stderr
    assert ("service.stopped" in ended.stderr, "the stop as well" in ended.stderr) == (False, deaf)
