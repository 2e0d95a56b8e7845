"""D.4: a flood of rings that nobody ought to trust."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg

from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.workload import FREE

TICKS = os.sysconf("SC_CLK_TCK")
FLOODERS = 2
FLOOD_SECONDS = 20.0
QUIET_SECONDS = 5.0
MOST_CPU = 0.35  # of a core, of 50,000 to 90,000 rings a second, which the driver reads one by one
MOST_CLAIMS = 60.0  # a second, beyond those of the jobs that were really there: rings count once in 25 to 75 ms
STARTED_P99 = 1.0  # seconds, of jobs that are enqueued while the flood goes on
# A thousand rings, each a transaction: they are addressed to the daemon, to another, to the self-test, or 7,999 bytes.
FLOOD = """
    do $$ declare forged text[] := array['{me}', '{me}', '999', 'test 0123456789abcdef', 'nonsense', repeat('x', 7999)];
    begin
      for n in 1..1000 loop
        perform pg_notify('worker', forged[1 + n % 6]); commit;
      end loop;
    end $$
"""
CLAIMS = """
    select coalesce(sum(calls), 0)::int from pg_stat_user_functions where schemaname = 'worker' and funcname = 'claim'
"""

WAITED = """
    select coalesce(percentile_cont(0.99) within group (order by extract(epoch from s.at - i.at)), 0)::float8
    from evidence.hist i join evidence.hist s on s.job_id = i.job_id
    where i.op = 'INSERT' and s.old_status = 'pending' and s.new_status = 'running' and i.at between $1 and $2
"""


@experiment("39-forged-rings", nightly=100_000)
async def forged_rings(place: Place, report: Report) -> None:
    """A tenant rings thousands of times a second, and a listener that never reads keeps all of it."""
    database = await place.connection.fetchval("select current_database()")
    await place.connection.execute(f"alter database {database} set track_functions = 'pl'")
    daemon = place.spawn(place.configure(FREE, 'grace = "5s"'))
    await place.started(daemon)
    me = await place.connection.fetchval("select id from worker.process")
    async with AsyncExitStack() as ending:
        tenants = [await _tenant(place, ending) for _ in range(FLOODERS + 1)]
        await tenants[-1].execute("listen worker")
        await tenants[-1].execute("begin; select 1")
        await _measured(place, report, daemon.pid, "quiet", QUIET_SECONDS)
        async with _flooding(tenants[:FLOODERS], me, report):
            await _measured(place, report, daemon.pid, "flooded", FLOOD_SECONDS)
        report.figures["rings_a_second"] = round(report.injected / FLOOD_SECONDS)
        report.figures["notify_queue_usage"] = await place.connection.fetchval("select pg_notification_queue_usage()")
    report.expect(report.figures["flooded_cpu"] <= MOST_CPU, f"{report.figures['flooded_cpu']:.0%} of a core")
    report.expect(
        report.figures["flooded_claims_a_second"] <= MOST_CLAIMS + report.figures["quiet_claims_a_second"],
        f"{report.figures['flooded_claims_a_second']} claims a second",
    )
    report.expect(report.figures["flooded_wait_p99_s"] <= STARTED_P99, "jobs waited while the flood went on")
    report.expect(await place.settled(30), "jobs are not final after 30 s")
    await place.judge(report)


async def _tenant(place: Place, ending: AsyncExitStack) -> asyncpg.Connection:
    """Anybody who may connect: NOTIFY and LISTEN know no rights."""
    await place.connection.execute(
        "do $$ begin create role stress_tenant in role worker_tenant; exception when duplicate_object then null; end $$"
    )
    connection = await asyncpg.connect(place.dsn, server_settings={"synchronous_commit": "off"})
    ending.push_async_callback(connection.close, timeout=5)
    await connection.execute("set session authorization stress_tenant")
    return connection


@asynccontextmanager
async def _flooding(tenants: Sequence[asyncpg.Connection], me: int, report: Report) -> AsyncIterator[None]:
    async def flood(tenant: asyncpg.Connection) -> None:
        while True:
            await tenant.execute(FLOOD.format(me=me))
            report.injected += 1000

    tasks = [asyncio.create_task(flood(tenant)) for tenant in tenants]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _measured(place: Place, report: Report, pid: int, name: str, seconds: float) -> None:
    """A job every 50 ms for so long; the daemon's share of a core, its claims, and how long jobs waited."""
    since = await place.connection.fetchval("select clock_timestamp()")
    began, cpu, claims = time.monotonic(), _cpu(pid), await place.connection.fetchval(CLAIMS)
    while time.monotonic() < began + seconds:
        await place.connection.execute("""select worker.enqueue('free', '{"ms": 1}')""")
        await asyncio.sleep(0.05)
    took = time.monotonic() - began
    claims = await place.connection.fetchval(CLAIMS) - claims
    report.figures[f"{name}_cpu"] = round((_cpu(pid) - cpu) / took, 3)
    report.figures[f"{name}_claims_a_second"] = round(claims / took, 1)
    now = await place.connection.fetchval("select clock_timestamp()")
    report.figures[f"{name}_wait_p99_s"] = round(await place.connection.fetchval(WAITED, since, now), 3)


def _cpu(pid: int) -> float:
    """Seconds that a process has computed so far (Linux)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS
