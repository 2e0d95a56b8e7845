"""D.3: PgBouncer in transaction mode between the daemons and the server."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.bouncer import Bouncer, bouncer
from tests.heart import until, write_config
from tests.stress.experiment import Missing, Report, experiment
from tests.stress.place import COMPRESSED, Place
from tests.stress.slow_jobs import SLOW_JOBS
from tests.stress.workload import FREE, MIXED, account, create_steps, produce_free, producing

SETTLE_SECONDS = 30.0
POOL = 2
RACE = 400  # jobs by which the way through the pooler is compared with the direct one
STUCK_SECONDS = 35.0  # promised where a transaction pooler is between
RUNNING = "select exists (select from worker.job_queue where id = $1 and status = 'running')"
HOLDER = "select p.pid from worker.job_queue j join worker.process p on p.id = j.claimed_by where j.id = $1"
STARTED_AGAIN = "select count(distinct new_claim) > 1 from evidence.hist where job_id = $1 and new_status = 'running'"


@contextmanager
def pooled(place: Place, size: int = POOL) -> Iterator[Bouncer]:
    """A pooler in transaction mode before the experiment's database."""
    try:
        with bouncer(place.dsn, "transaction", size) as started:
            yield started
    except LookupError as missing:
        raise Missing(str(missing)) from None


def written(place: Place, jobs: str, database: str = "", worker: str = COMPRESSED) -> Path:
    """A worker.toml whose [database] says more."""
    jobs = jobs.replace("{folder}", str(place.folder))
    return write_config(place.folder, jobs, worker=worker, database=f'{database}search_path = "public"')


@experiment("34-pooler-with-a-direct-way", fast=4, nightly=40)
async def pooler_with_a_direct_way(place: Place, report: Report) -> None:
    """The queue's own calls through a pool of two, everything else past it; the pooler restarts, pauses, dies."""
    await create_steps(place)
    with pooled(place) as through:
        config = written(place, MIXED, f'direct_url = "{place.dsn}"\n')
        await place.started(place.spawn(config, through.dsn), place.spawn(config, through.dsn))
        async with producing(place, 60):
            await _disturbed(report, through)
        report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
        _expect_said(place, report, pooler="transaction", step_pooler="none", listener="heard", judged_by="session")
        await _over(place, report, through)
    await account(place, report)
    report.expect(
        not place.count_said("lease.fenced"), "the lease was lost, though it does not lead through the pooler"
    )


@experiment("34-pooler-alone", fast=4, nightly=40)
async def pooler_alone(place: Place, report: Report) -> None:
    """Everything through a pool of two: coroutines run, types with SQL steps are refused, nobody listens."""
    await create_steps(place)
    with pooled(place) as through:
        await _refused(place, report, through)
        jobs = MIXED.partition("[job.graph]")[0]
        config = written(place, jobs)
        await place.started(place.spawn(config, through.dsn), place.spawn(config, through.dsn))
        async with producing(place, 60, produce_free):
            await _disturbed(report, through)
        report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
        _expect_said(
            place, report, pooler="transaction", step_pooler="transaction", listener="refused", judged_by="lease"
        )
        report.expect(place.count_said("listener.refused") >= 2, "nobody said that nobody listens")
        if report.planned > 4:
            await _compared(place, report, through)
        await _over(place, report, through)
    await account(place, report)
    false = "select count(*) from worker.job_event where event = 'rescue'"
    report.expect(await place.connection.fetchval(false) == 0, "somebody was taken for dead")


@experiment("34-crash-behind-a-pooler", nightly=2, quiet=True)
async def crash_behind_a_pooler(place: Place, report: Report) -> None:
    """kill -9 of daemons that only their lease shows to be dead, with everything at its default."""
    with pooled(place, 20) as through:
        config = written(place, SLOW_JOBS, worker='grace = "1s"')
        await place.started(*[place.spawn(config, through.dsn) for _ in range(3)])
        jobs = [
            await place.connection.fetchval("""select worker.enqueue('slow', '{"seconds": 600}')""")
            for _ in range(report.planned)
        ]
        for job in jobs:
            await until(place.connection, RUNNING, job)
        await asyncio.sleep(20)  # the sessions of the others are old enough to judge by
        began, victims = time.monotonic(), {await place.connection.fetchval(HOLDER, job) for job in jobs}
        for each in [daemon for daemon in place.daemons if daemon.pid in victims][:2]:
            place.kill(each)
        for job in jobs:
            await until(place.connection, STARTED_AGAIN, job, seconds=60)
            report.injected += 1
        report.figures["crash_to_retry_s"] = round(time.monotonic() - began, 1)
        report.expect(report.figures["crash_to_retry_s"] <= STUCK_SECONDS, "the dead held their jobs for too long")
        await place.settled(SETTLE_SECONDS)
        await _over(place, report, through)
    report.stuck.clear()  # of another promise than the one at default settings without a pooler


async def _disturbed(report: Report, through: Bouncer) -> None:
    """What happens to poolers, in turn, while jobs flow."""

    async def restart() -> None:
        await asyncio.to_thread(through.restart)

    async def kill() -> None:
        through.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(through.restart)

    async def pause() -> None:
        await through.say("PAUSE")
        await asyncio.sleep(0.7)
        await through.say("RESUME")

    async def reconnect() -> None:
        await through.say("RECONNECT")

    troubles: tuple[Callable[[], Awaitable[None]], ...] = (restart, pause, reconnect, kill)
    for number in range(report.planned):
        await asyncio.sleep(0.4)
        await troubles[number % len(troubles)]()
        report.injected += 1
    await asyncio.sleep(0.4)


async def _refused(place: Place, report: Report, through: Bouncer) -> None:
    """A graph cannot be run here, and who starts it is told the cure."""
    daemon = place.spawn(written(place, MIXED), through.dsn)
    code = await asyncio.to_thread(daemon.ends)
    report.expect(code == 2, f"a daemon with SQL steps ended with {code}, not with 2")
    report.expect("database.direct_url" in daemon.said(), "the refusal does not name database.direct_url")


def _expect_said(place: Place, report: Report, **profile: str) -> None:
    said = [daemon.said() for daemon in place.daemons if "service.profile" in daemon.said()]
    report.expect(bool(said), "no daemon wrote its profile")
    for name, value in profile.items():
        report.expect(all(f'"{name}":"{value}"' in each for each in said), f"the profile does not say {name}={value}")


async def _compared(place: Place, report: Report, through: Bouncer) -> None:
    """Jobs a second of one daemon: through the pooler, then directly."""
    await place.stopped()
    for name, dsn in (("pooled", through.dsn), ("direct", place.dsn)):
        daemon = place.spawn(written(place, FREE), dsn)
        await place.started(daemon)
        began = time.monotonic()
        await produce_free(place, RACE, 1)
        await place.settled(SETTLE_SECONDS)
        report.figures[f"{name}_jobs_per_s"] = round(RACE / (time.monotonic() - began))
        await place.stopped()


async def _over(place: Place, report: Report, through: Bouncer) -> None:
    """Stop, look at what is left on the connections that others get now, then ask the checker."""
    place.memory()
    codes = await place.stopped()
    report.expect(set(codes) <= {0}, f"daemons ended with {codes}")
    stranger = await asyncpg.connect(through.dsn, statement_cache_size=0)
    left = "select count(*) from pg_listening_channels()", "select count(*) from pg_locks where locktype = 'advisory'"
    for question in left:
        report.expect(await stranger.fetchval(question) == 0, f"left on a shared connection: {question}")
    await stranger.close()
    through.end()  # its connections bear our name
    await place.judge(report)
