"""D.2: a standby takes over. The old primary stays up and read-only, or it is gone with what it had not sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from tests.heart import until
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    TROUBLE,
    errors_said,
    few_attempts,
    flowing,
    frozen,
    processes,
    program,
    settle_all,
    unharmed,
)
from tests.stress.workload import MIXED, account, create_steps
from tests.support import server_folder
from worker.embedded import Embedded, start
from worker.embedded.binaries import account as server_account
from worker.embedded.folders import own

READ_ONLY_SECONDS = 1.5  # of the old one, before anybody leads the way to the new one
BEHIND_SECONDS = 1.0  # of the standby that hears nothing


@experiment("20-failover", own_server=True, nightly=3)
async def failover(place: Place, report: Report) -> None:
    """Synchronous standby, promoted while the old primary stays up read-only (25006); nothing acknowledged is lost."""
    async with AsyncExitStack() as ending:
        door, enqueued = await _begun(place, ending)
        async with _enqueuing(place, enqueued):
            for _ in range(report.planned):
                standby = await _standby(place, ending)
                await place.connection.execute("alter system set synchronous_standby_names = '*'")
                await place.connection.execute("select pg_reload_conf()")
                await until(place.connection, "select sync_state = 'sync' from pg_stat_replication")
                await flowing(place)
                await place.connection.execute("alter system set default_transaction_read_only = on")
                await place.connection.execute("select pg_reload_conf()")
                await asyncio.sleep(READ_ONLY_SECONDS)
                await _take_over(place, standby, door)
                report.injected += 1
                most = report.figures.get("to_first_job_s", 0.0)
                report.figures["to_first_job_s"] = max(most, round(await flowing(place), 2))
        await _judged(place, report, enqueued)
        report.expect(report.figures["lost_rows"] == 0, f"{report.figures['lost_rows']} acknowledged rows are lost")


@experiment("20-failover-without-sync", own_server=True, nightly=1)
async def failover_without_sync(place: Place, report: Report) -> None:
    """Asynchronous, synchronous_commit off: a standby that is behind takes over; what it had not heard is lost."""
    await place.connection.execute("alter system set synchronous_commit = off")
    await place.connection.execute("select pg_reload_conf()")
    async with AsyncExitStack() as ending:
        door, enqueued = await _begun(place, ending)
        async with _enqueuing(place, enqueued):
            standby = await _standby(place, ending)
            await flowing(place)
            receiver = [pid for pid in processes(standby.pid) if b"walreceiver" in _title(pid)]
            with frozen(receiver):
                await asyncio.sleep(BEHIND_SECONDS)
                await asyncio.to_thread(place.server.stop, "immediate")
            await _take_over(place, standby, door)
            report.injected += 1
            report.figures["to_first_job_s"] = round(await flowing(place), 2)
        await _judged(place, report, enqueued)
        report.expect(report.figures["lost_rows"] > 0, "nothing was lost: the standby was not behind")


async def _begun(place: Place, ending: AsyncExitStack) -> tuple[FaultProxy, list[int]]:
    """Two daemons behind a proxy that can lead elsewhere."""
    await create_steps(place)
    door = await ending.enter_async_context(faulty(place.dsn))
    config = place.configure(few_attempts(MIXED), DEFAULT_TERMS)
    await place.started(*(place.spawn(config, door.dsn) for _ in range(2)))
    return door, []


@asynccontextmanager
async def _enqueuing(place: Place, enqueued: list[int]) -> AsyncIterator[None]:
    """Enqueue one by one, at the primary of the moment, and write down what was acknowledged."""

    async def enqueue() -> None:
        dsn, connection = "", None
        while True:
            with suppress(*TROUBLE):
                if connection is None or connection.is_closed() or dsn != place.dsn:
                    dsn, connection = place.dsn, await asyncpg.connect(place.dsn, timeout=2, command_timeout=2)
                for job_type in ("free", "graph", "keyed"):
                    payload = f'{{"key": "{place.chance.randrange(30)}", "ms": 5}}'
                    enqueued.append(
                        await connection.fetchval("select worker.enqueue($1, $2::jsonb)", job_type, payload)
                    )
            await asyncio.sleep(0.01)

    task = asyncio.create_task(enqueue())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _standby(place: Place, ending: AsyncExitStack) -> Embedded:
    """A copy of the primary that follows it."""
    folder = ending.enter_context(server_folder())
    own(folder, server_account())
    query = parse_qs(urlsplit(place.server.dsn()).query)
    host, port = query["host"][0], query["port"][0]
    await asyncio.to_thread(
        program, place, "pg_basebackup", "-h", host, "-p", port, "-U", "postgres", "-D", str(folder / "cluster"),
        "-R", "-X", "stream", "-c", "fast",
    )  # fmt: skip
    standby = await asyncio.to_thread(start, folder, die_with_parent=True)
    ending.callback(standby.stop, "immediate")
    await until(place.connection, "select count(*) = 1 from pg_stat_replication where state = 'streaming'")
    return standby


async def _take_over(place: Place, standby: Embedded, door: FaultProxy) -> None:
    """Promote the standby, then lead the way to it; the experiment itself goes along."""
    await asyncio.to_thread(program, place, "pg_ctl", "promote", "-D", str(standby.data / "cluster"))
    place.server, place.dsn = standby, standby.dsn(urlsplit(place.dsn).path[1:])
    await place.reconnect()
    await place.connection.execute("alter system reset all")  # what it took over of the old one's settings
    await place.connection.execute("select pg_reload_conf()")
    door.point(place.dsn)


def _title(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def _judged(place: Place, report: Report, enqueued: list[int]) -> None:
    await settle_all(place, report)
    await unharmed(place, report)
    there = await place.connection.fetch("select id from worker.job_queue where id = any ($1)", enqueued)
    report.figures |= {"acknowledged": len(enqueued), "lost_rows": len(enqueued) - len(there), **errors_said(place)}
    await place.judge(report)
    await account(place, report)
