"""D.3: the server has committed, and nobody ever hears of it."""

import asyncio
import time

from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.jobs import RUNS, lines
from tests.stress.place import Place
from tests.stress.telling import percentile
from tests.stress.workload import RETRY, create_steps

SETTLE_SECONDS = 30.0
POLL_SECONDS = 5.0  # by default
FOLLOWING = f"""
[job.parent]
python = "tests.stress.follow_jobs:parent"
settings = {{ folder = "{{folder}}" }}
{RETRY}
[job.child]
python = "tests.stress.follow_jobs:ran"
settings = {{ folder = "{{folder}}" }}
{RETRY}
[job.silent]
python = "tests.stress.follow_jobs:silent"
settings = {{ folder = "{{folder}}" }}
{RETRY}
[job.after]
python = "tests.stress.follow_jobs:ran"
settings = {{ folder = "{{folder}}" }}
{RETRY}
[job.graph]
arguments = {{ job_id = "id" }}
parallel = 2
then = ["after"]
{RETRY}
[job.graph.steps]
a = {{ sql = "step_a", tags = ["a"] }}
b = {{ sql = "step_b", needs = ["a"], tags = ["b"] }}
c = {{ sql = "step_c" }}
d = {{ sql = "step_d", needs = ["b", "c"] }}
"""
# What is lost, and the job whose call it is: a claim, a step, a completion, one without a result, one that inserts what
# follows.
LOST = (
    ("claim", b"worker.claim(", "parent"),
    ("step", b"worker.run_step(", "graph"),
    ("completion", b"worker.settle(", "child"),
    ("plain_completion", b"worker.complete(", "silent"),
    ("steps_begin", b"worker.begin_steps(", "graph"),
    ("follow_up", b"worker.settle(", "parent"),
    ("follow_up_of_steps", b"worker.settle(", "graph"),
)
CLAIMED_AGAIN = """
    select count(*) from worker.job_queue j where 2 = (
      select count(distinct h.new_claim) from evidence.hist h where h.job_id = j.id and h.new_status = 'running')
"""
FOLLOWERS = """
    select count(*) from worker.job_queue p
    where p.job_type = any ($1) and p.status = 'completed' and 1 <> (
      select count(*) from worker.job_queue f
      where f.job_type = $2 and coalesce(f.payload -> 'parent' ->> 'id', f.payload ->> 'of') = p.id::text)
"""


@experiment("29-lost-commit", fast=12, nightly=180)
async def lost_commit(place: Place, report: Report) -> None:
    """The answer to a claim, a step, a completion or what follows it is thrown away with the connection."""
    await create_steps(place)
    config = place.configure(FOLLOWING)
    seconds: dict[str, list[float]] = {}
    async with faulty(place.dsn, place.chance.randrange(1000)) as proxy:
        await place.started(place.spawn(config, proxy.dsn))
        for number in range(report.planned):
            name, text, job_type = LOST[number % len(LOST)]
            seconds.setdefault(name, []).append(await _lose(place, report, proxy, text, job_type))
        report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
        await place.judge(report)
    report.figures |= {f"{name}_p50_s": round(percentile(each, 0.5), 2) for name, each in seconds.items()}
    await _account(place, report)


async def _lose(place: Place, report: Report, proxy: FaultProxy, text: bytes, job_type: str) -> float:
    """One answer; answers with how long the job took nevertheless."""
    lost, began = proxy.lost, time.monotonic()
    proxy.lose = [text]
    job = await place.connection.fetchval("select worker.enqueue($1)", job_type)
    over = "select status = 'completed' from worker.job_queue where id = $1"
    async with asyncio.timeout(SETTLE_SECONDS):
        while not await place.connection.fetchval(over, job) or proxy.lose:
            await asyncio.sleep(0.01)
    report.injected += proxy.lost - lost
    return time.monotonic() - began


async def _account(place: Place, report: Report) -> None:
    """Each parent has one child, each graph one that comes after it, each coroutine ran once, and no verdict was taken
    for a stale one: what is on the row under our claim is ours."""
    report.expect(report.stale_refused == 0, f"{report.stale_refused} verdicts were given up that had been written")
    wrong = await place.connection.fetchval(FOLLOWERS, ["parent"], "child")
    wrong += await place.connection.fetchval(FOLLOWERS, ["graph"], "after")
    report.effects += wrong
    report.expect(wrong == 0, f"{wrong} jobs have no successor, or more than one")
    incomplete = await place.connection.fetchval(
        "select count(*) from worker.job_queue j where job_type = 'graph'"
        " and (select count(distinct step) from evidence.fx where fx.job_id = j.id) <> 4"
    )
    report.lost += incomplete
    report.expect(incomplete == 0, f"{incomplete} graphs lack an effect")
    ran = [int(line[0]) for line in lines(place.folder, RUNS)]
    report.duplicates += len(ran) - len(set(ran))
    report.expect(
        report.duplicates == 0, f"{report.duplicates} coroutines ran again, though nothing but an answer was lost"
    )
    report.figures["steps_marked"] = await place.connection.fetchval(
        "select count(*) from worker.job_step where status = 'completed'"
    )


@experiment("30-lost-claim", fast=8, nightly=60, quiet=True)
async def lost_claim(place: Place, report: Report) -> None:
    """The claim's answer is lost, with everything at its default: its rows start at once, and not after a lease."""
    config = place.configure(FOLLOWING.partition("[job.graph]")[0], worker='grace = "1s"')
    async with faulty(place.dsn, place.chance.randrange(1000)) as proxy:
        await place.started(place.spawn(config, proxy.dsn))
        for _ in range(3 * report.planned):  # now and then it is the answer of a poll that found nothing
            await asyncio.sleep(0.1)
            before = report.injected
            seconds = await _lose(place, report, proxy, b"worker.claim(", "child")
            report.injected = await place.connection.fetchval(CLAIMED_AGAIN)
            if report.injected > before:
                report.recovery.append(seconds)
                report.expect(seconds <= 2 * POLL_SECONDS * report.slack, f"{seconds:.1f} s to the next claim")
            if report.injected >= report.planned:
                break
        await place.judge(report)
    twice = "select count(*) from worker.job_queue where attempt <> 1 or rescues <> 0 or status <> 'completed'"
    report.expect(await place.connection.fetchval(twice) == 0, "a claim that nobody heard of was counted")
