"""The experiments, each with its own check of the evidence."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from tests.heart import until
from tests.stress.jobs import RUNS, VIOLATIONS, lines
from tests.stress.place import Experiment, Place

SETTLE_SECONDS = 60.0
KEYS = 60

KEYED = """
[job.keyed]
python = "tests.stress.jobs:keyed"
concurrency_key = "key:{key}"
settings = { folder = "{folder}" }
retry = { first = "10ms", max = "100ms", max_attempts = 100 }
[job.free]
python = "tests.stress.jobs:free"
settings = { folder = "{folder}" }
retry = { first = "10ms", max = "100ms", max_attempts = 100 }
"""
STEPS = """
[job.graph]
arguments = { job_id = "id" }
parallel = 2
retry = { first = "10ms", max = "100ms", max_attempts = 100 }
[job.graph.steps]
a = { sql = "step_a" }
b = { sql = "step_b", needs = ["a"] }
c = { sql = "step_c" }
d = { sql = "step_d", needs = ["b", "c"] }
"""
FUNCTION = """
create function step_{0}(job_id bigint) returns void language plpgsql as $$
begin
  insert into fx (job_id, step) values (job_id, '{0}');
  perform pg_sleep(random() * 0.03);
end $$;
"""
LONG = """
[job.long]
arguments = { job_id = "id" }
[job.long.steps]
long = { sql = "long" }
"""
LINGER = """
[job.free]
python = "tests.stress.jobs:free"
settings = { folder = "{folder}" }
"""


async def keyed(place: Place, daemons: int, kills: int) -> Experiment:
    """Jobs of a key never overlap, and none is forgotten, while claimers are killed."""
    report = Experiment("key-exclusion-under-kill", kills)
    config = place.configure(KEYED)
    await place.started(*[place.spawn(config) for _ in range(daemons)])  # they declare the key, so the jobs come after
    await produce_keyed(place, 400)
    producing = asyncio.create_task(_keep_producing(place, produce_keyed, 300))
    report.injected = await place.kills(kills, config, 0.5, daemons // 2)
    producing.cancel()
    await asyncio.gather(producing, return_exceptions=True)
    report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
    await _clean_end(place, report)
    await _nothing_left(place, report)
    violations = lines(place.folder, VIOLATIONS)
    report.duplicates = len(violations)
    report.expect(not violations, f"{len(violations)} overlaps of one key, such as {violations[:3]}")
    ran = {int(line[0]) for line in lines(place.folder, RUNS)}
    keyless = "select count(*) from worker.job_queue where job_type = 'keyed' and concurrency_key is null"
    report.expect(await place.connection.fetchval(keyless) == 0, "some jobs had no key: the experiment showed nothing")
    rows = await place.connection.fetch("select id from worker.job_queue where status = 'completed'")
    nobody = [row["id"] for row in rows if row["id"] not in ran]
    report.lost += len(nobody)
    report.expect(not nobody, f"completed, but run by nobody: {nobody[:5]}")
    return report


async def steps(place: Place, daemons: int, kills: int) -> Experiment:
    """Each step of each job takes effect exactly once, while its daemons are killed."""
    report = Experiment("step-effects-under-kill", kills)
    await place.connection.execute(
        "create table fx (job_id bigint, step text, at timestamptz default clock_timestamp())"
    )
    for name in "abcd":
        await place.connection.execute(FUNCTION.format(name))
    config = place.configure(STEPS)
    await place.started(*[place.spawn(config) for _ in range(daemons)])
    await _produce_graphs(place, 100)
    producing = asyncio.create_task(_keep_producing(place, _produce_graphs, 60))
    report.injected = await place.kills(kills, config, 0.5, daemons - 1)
    producing.cancel()
    await asyncio.gather(producing, return_exceptions=True)
    report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
    await _clean_end(place, report)
    await _nothing_left(place, report)
    twice = await place.connection.fetch("select job_id, step, count(*) from fx group by 1, 2 having count(*) > 1")
    report.duplicates = len(twice)
    report.expect(
        not twice, f"{len(twice)} steps took effect more than once, such as {[tuple(row) for row in twice[:3]]}"
    )
    missing = await place.connection.fetchval(
        "select count(*) from worker.job_queue j where status = 'completed'"
        " and (select count(distinct step) from fx where fx.job_id = j.id) <> 4"
    )
    report.lost += missing
    report.expect(missing == 0, f"{missing} completed jobs lack an effect")
    return report


async def recovery(place: Place, kills: int) -> Experiment:
    """From the death of a daemon to the second start of its job, with everything at its default."""
    report = Experiment("crash-to-retry-at-defaults", kills)
    await place.connection.execute(
        "create function long(job_id bigint) returns void language plpgsql as $$ begin perform pg_sleep(600); end $$"
    )
    config = place.configure(LONG, worker='grace = "1s"')
    await place.started(place.spawn(config), place.spawn(config))
    running = "select exists (select from worker.job_step where job_id = $1 and status = 'running' and claim > $2)"
    for _ in range(kills):
        job_id = await place.connection.fetchval("select worker.enqueue('long')")
        await until(place.connection, running, job_id, 0)
        pid, claim = await place.connection.fetchrow(
            "select p.pid, j.claim from worker.job_queue j join worker.process p on p.id = j.claimed_by"
            " where j.id = $1",
            job_id,
        )
        place.kill(next(each for each in place.alive() if each.pid == pid))
        began = time.monotonic()
        report.injected += 1
        await until(place.connection, running, job_id, claim, seconds=30)
        report.recovery.append(time.monotonic() - began)
        await place.connection.execute("select worker.cancel($1)", job_id)
        await place.started(place.spawn(config))
        await until(place.connection, "select status = 'cancelled' from worker.job_queue where id = $1", job_id)
    report.jobs = kills
    report.expect(max(report.recovery) < 30, "a job waited longer than 30 s")
    report.expect(set(await place.stopped()) == {0}, "a daemon did not stop in good order")
    return report


async def zombie(place: Place, rounds: int) -> Experiment:
    """A daemon stopped for longer than its lease wakes up, its work done by another; what it writes is refused."""
    report = Experiment("stopped-beyond-the-lease", rounds)
    config = place.configure(LINGER)
    await place.started(place.spawn(config), place.spawn(config))
    for _ in range(rounds):
        ids = [await place.connection.fetchval("""select worker.enqueue('free', '{"ms": 1500}')""") for _ in range(8)]
        await until(place.connection, "select count(*) = 8 from worker.job_queue where status = 'running'")
        pid = await place.connection.fetchval(
            "select p.pid from worker.job_queue j join worker.process p on p.id = j.claimed_by"
            " where j.status = 'running' group by 1 order by count(*) desc limit 1"
        )
        stopped = next(each for each in place.alive() if each.pid == pid)
        stopped.send(signal.SIGSTOP)
        report.injected += 1
        await until(
            place.connection,
            "select bool_and(status = 'completed') from worker.job_queue where id = any ($1)", ids, seconds=40,
        )  # fmt: skip
        stopped.send(signal.SIGCONT)
        # It has noticed when it is back under a new id, and has settled or dropped what it held.
        await until(
            place.connection,
            "select exists (select from worker.process where pid = $1 and dead_at is null and lease_until > now())",
            pid, seconds=30,
        )  # fmt: skip
    await _clean_end(place, report)
    await _nothing_left(place, report)
    report.expect(place.count_said("service.declared_dead") >= rounds, "the stopped daemon was never declared dead")
    report.expect(report.stale_refused > 0, "no stale write was refused: the experiment showed nothing")
    return report


async def produce_keyed(place: Place, count: int, keys: int = KEYS) -> None:
    """Jobs of random keys and lengths; each fourth one is free of a key."""
    chance = place.chance
    payloads = [
        f'{{"key": "{chance.randrange(keys)}", "ms": {chance.randrange(1, 40)}}}' for _ in range(count)
    ]  # fmt: skip
    await place.connection.execute(
        "select worker.enqueue(case when n % 4 = 0 then 'free' else 'keyed' end, p::jsonb)"
        " from unnest($1::text[]) with ordinality as u (p, n)",
        payloads,
    )


async def _produce_graphs(place: Place, count: int) -> None:
    await place.connection.execute("select worker.enqueue('graph') from generate_series(1, $1)", count)


async def _keep_producing(place: Place, produce: Callable[[Place, int], Awaitable[None]], count: int) -> None:
    """Never let the queue run dry while faults are injected."""
    while True:
        waiting = await place.connection.fetchval("select count(*) from worker.job_queue where status = 'pending'")
        if waiting < count:
            await produce(place, count)
        await asyncio.sleep(0.1)


async def _clean_end(place: Place, report: Experiment) -> None:
    codes = await place.stopped()
    report.expect(set(codes) <= {0}, f"daemons ended with {codes}")
    report.stale_refused = place.count_said('"job.lost_claim"')
    report.stuck = await place.stuck()


async def _nothing_left(place: Place, report: Experiment) -> None:
    ask = place.connection.fetchval
    report.jobs = await ask("select count(*) from worker.job_queue")
    open_jobs = await ask("select count(*) from worker.job_queue where status in ('pending', 'running')")
    failed = await ask("select count(*) from worker.job_queue where status <> 'completed' and finished_at is not null")
    report.lost += open_jobs
    report.expect(open_jobs == 0, f"{open_jobs} jobs are not final")
    report.expect(failed == 0, f"{failed} jobs did not complete")
    parked = await ask("select count(*) from worker.job_queue where parked")
    slots = await ask("select count(*) from worker.key_slot")
    report.expect(parked == 0, f"{parked} rows are parked")
    report.expect(slots == 0, f"{slots} keys are held by nobody")
    report.stale_accepted = await ask(
        "select count(*) from worker.job_queue where status = 'completed' and (result ->> 'claim')::bigint <> claim"
    )
    report.expect(report.stale_accepted == 0, f"{report.stale_accepted} results were written under a stale claim")
    backends = (
        "select count(*) from pg_stat_activity where application_name ~ '^worker ' and datname = current_database()"
    )
    report.expect(await ask(f"select ({backends}) = 0"), "connections of daemons are left")
