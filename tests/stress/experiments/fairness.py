"""D.6: one tenant enqueues very much, another ten jobs, and priorities are at their extremes."""

import asyncio

from tests.heart import until
from tests.stress.experiment import Report, experiment
from tests.stress.place import COMPRESSED, Place
from tests.stress.postgres import settle_all
from tests.stress.telling import percentile

SLOTS = 8  # of one daemon, as COMPRESSED has it
MS = 10  # that each job takes
TURNS = """
[job.free]
python = "tests.stress.jobs:free"
fair = true
settings = { folder = "{folder}" }
retry = { first = "10ms", max = "100ms", max_attempts = 100 }
"""
# Of a's jobs one in a hundred comes before all others and each second one after: they are claimed by priority first.
MANY = """
    select worker.enqueue_many('free', priority => $1,
      payloads => array_fill(jsonb_build_object('tenant_id', 'a', 'ms', $2::integer), array[$3::integer]))
"""
FEW = """select worker.enqueue('free', jsonb_build_object('tenant_id', 'b', 'ms', $1::integer))"""
STARTED = "select started_at is not null from worker.job_queue where id = $1"
# How long each of b's jobs waited, and how many of a's of the same or a worse priority began meanwhile.
WAITED = """
    select extract(epoch from b.at - i.at)::float8 as seconds, (
      select count(*) from evidence.hist a join worker.job_queue aj on aj.id = a.job_id
      where a.old_status = 'pending' and a.new_status = 'running' and aj.tenant_id = 'a' and aj.priority >= 100
        and a.at > i.at and a.at < b.at) as passed
    from evidence.hist b join worker.job_queue j on j.id = b.job_id and j.tenant_id = 'b'
    join evidence.hist i on i.job_id = b.job_id and i.op = 'INSERT'
    where b.old_status = 'pending' and b.new_status = 'running'
"""
CANCEL_REST = "select count(worker.cancel(id)) from worker.job_queue where status = 'pending'"


@experiment("60-one-tenant", limit=900, fast=2_000, nightly=100_000)
async def one_tenant(place: Place, report: Report) -> None:
    """Two daemons; the ten jobs of the second tenant come one by one into the first one's line."""
    config = place.configure(TURNS, COMPRESSED.replace("prefetch = 8", "prefetch = 50"))
    await place.started(place.spawn(config), place.spawn(config))
    for priority, share in ((100, 0.49), (1000, 0.5), (0, 0.01)):
        await place.connection.execute(MANY, priority, MS, int(report.planned * share))
        report.injected += int(report.planned * share)
    await until(place.connection, "select count(*) = 0 from worker.job_queue where status = 'pending' and priority = 0")
    for _ in range(10):
        b = await place.connection.fetchval(FEW, MS)
        await until(place.connection, STARTED, b)
        await asyncio.sleep(0.02)
    rest = await place.connection.fetchval(CANCEL_REST)
    await settle_all(place, report)
    rows = await place.connection.fetch(WAITED)
    passed, seconds = [row["passed"] for row in rows], [row["seconds"] for row in rows]
    report.figures |= {
        "waited_p50_ms": round(1000 * percentile(seconds, 0.5), 1),
        "waited_p99_ms": round(1000 * percentile(seconds, 0.99), 1),
        "passed_by_most": max(passed, default=0),
    }
    report.expect(len(rows) == 10, f"{len(rows)} of ten jobs began")
    # Two job lengths: in each of them every slot of both daemons may begin another one.
    report.expect(rest > 0, "the first tenant's line ended before the second one's jobs had begun")
    report.expect(
        max(passed, default=0) <= 2 * 2 * SLOTS,
        f"{max(passed, default=0)} jobs of the first tenant passed by one of the second",
    )
    await place.judge(report)
