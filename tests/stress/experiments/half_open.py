"""D.3: connections that are dead and do not say so, while new ones get through."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import asyncpg

from tests.heart import until, write_config
from tests.processes import Daemon
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.place import Place

STEP_SECONDS = 3.0
SLOW_STEP = """
    create sequence tries;
    create function slow(job_id bigint) returns void language sql as
    $$ select evidence.step(job_id, 'slow', case when nextval('tries') = 1 then 600 else 0.1 end) $$
"""
TYPES = {
    "beat": "",
    "listen": "",
    "control": """
[job.free]
python = "tests.stress.jobs:free"
settings = { folder = "{folder}" }
""",
    "step": """
[job.slow]
arguments = { job_id = "id" }
retry = { first = "10ms", max_attempts = 5 }
[job.slow.steps]
slow = { sql = "slow", timeout = "3s" }
""",
}
DONE = "select status = 'completed' from worker.job_queue where id = $1"


class Aim(NamedTuple):
    """One daemon behind a proxy, whose connections of one kind are to freeze."""

    connection: asyncpg.Connection
    proxy: FaultProxy
    daemon: Daemon

    async def said(self, text: str, seconds: float) -> None:
        await asyncio.to_thread(self.daemon.says, text, seconds)


@experiment("31-half-open", nightly=4, quiet=True, limit=150)
async def half_open(place: Place, report: Report) -> None:
    """Each kind of connection goes dead in silence, at default settings: found within the deadline that is stated."""
    await place.connection.execute(SLOW_STEP)
    noticed = await asyncio.gather(*(_noticed(place, report, duty) for duty in AIMS))
    for duty, seconds in zip(AIMS, noticed, strict=True):
        report.figures[f"{duty}_noticed_s"] = round(seconds, 1)
        stated = AIMS[duty][1]
        report.expect(seconds <= stated, f"{duty}: noticed after {seconds:.1f} s, and {stated:g} s are stated")
    report.expect(place.count_said('"lease.fenced"') == 0, "a beat that went astray cost the lease")
    report.expect(place.count_said('"process.dead"') == 0, "somebody was declared dead")
    await place.judge(report)


async def _noticed(place: Place, report: Report, duty: str) -> float:
    """Freeze the connections of a duty; answers with how long that went unnoticed."""
    folder = place.folder / duty
    folder.mkdir()
    config = write_config(folder, TYPES[duty].replace("{folder}", str(folder)), worker='grace = "1s"')
    async with faulty(place.dsn) as proxy:
        daemon = place.spawn(config, proxy.dsn)
        await place.started(daemon)
        await asyncio.to_thread(daemon.says, '"listener":"heard"')
        connection = await asyncpg.connect(place.dsn)  # the place's own is not for four at once
        try:
            seconds = await AIMS[duty][0](Aim(connection, proxy, daemon), report)
        finally:
            await connection.close(timeout=5)
        daemon.send(signal.SIGTERM)
        report.expect(await asyncio.to_thread(daemon.ends) == 0, f"{duty}: the daemon did not end well")
    return seconds


async def _beat(aim: Aim, report: Report) -> float:
    """Until it beats over another connection."""
    began = time.monotonic()
    report.injected += aim.proxy.freeze("beat") > 0
    await aim.said("lease.beat_missed", 10)
    return time.monotonic() - began


async def _listen(aim: Aim, report: Report) -> float:
    """Until it listens anew."""
    began = time.monotonic()
    report.injected += aim.proxy.freeze("listen") > 0
    await aim.said("listener.lost", 90)
    return time.monotonic() - began


async def _control(aim: Aim, report: Report) -> float:
    """Until a job is done that was enqueued when the claims were dead already."""
    began = time.monotonic()
    report.injected += aim.proxy.freeze("control") > 0
    job = await aim.connection.fetchval("""select worker.enqueue('free', '{"ms": 1}')""")
    await until(aim.connection, DONE, job, seconds=120)
    return time.monotonic() - began


async def _step(aim: Aim, report: Report) -> float:
    """Until the step whose answer cannot come is taken for over its time."""
    job = await aim.connection.fetchval("select worker.enqueue('slow')")
    await until(aim.connection, "select last_value = 1 and is_called from tries")
    began = time.monotonic()
    report.injected += aim.proxy.freeze("step") > 0
    await aim.said("job.retried", 60)
    noticed = time.monotonic() - began
    await until(aim.connection, DONE, job)
    return noticed


# How to tell that it was noticed, and by when it must be.
AIMS: dict[str, tuple[Callable[[Aim, Report], Awaitable[float]], float]] = {
    "beat": (_beat, 2.0),  # the fence
    "step": (_step, STEP_SECONDS + 5.5 + 1.0),  # its timeout, and what its end is given
    "control": (_control, 10.0 + 3.0),  # the deadline of a call, and a claim over another connection
    "listen": (_listen, 60.0 + 2.0 + 3.0),  # the test, and its ring
}
