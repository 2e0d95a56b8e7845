"""D.6: cancels in every state of a job, and in the very moment of its end."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import asyncpg

from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.workload import MIXED, RETRY, create_steps, produce

SETTLE_SECONDS = 40.0
AT_ONCE = 4  # who cancels
MORE = f"""
[job.flaky]
python = "tests.stress.misbehaviour:flaky"
settings = {{ folder = "{{folder}}" }}
retry = {{ first = "300ms", max = "600ms", max_attempts = 3 }}
[job.long]
arguments = {{ job_id = "id" }}
{RETRY}
[job.long.steps]
long = {{ sql = "long" }}
"""
# Claimed anew although the cancel was answered by then: it must win over every way back to pending.
STARTED_AFTER = """
    select count(*) from evidence.hist h where h.job_id = $1 and h.new_status = 'running' and h.at > $2
      and h.new_claim is distinct from h.old_claim and h.old_status = 'pending'
"""
STATE = """
    select case when status <> 'pending' then status when parked then 'parked'
      when scheduled_at > now() + interval '5 s' then 'later' when started_at is not null then 'retrying' else 'due' end
    from worker.job_queue where id = $1
"""


@dataclass
class Answers:
    """What the cancels were answered: (job, state it was seen in, answer, when)."""

    given: list[tuple[int, str, str, object]] = field(default_factory=list)

    async def cancel(self, connection: asyncpg.Connection, job: int) -> None:
        state = await connection.fetchval(STATE, job)
        answer = await connection.fetchval("select worker.cancel($1)", job)
        self.given.append((job, state, answer, await connection.fetchval("select clock_timestamp()")))


@experiment("62-cancels", fast=300, nightly=3000, quiet=True)
async def cancels(place: Place, report: Report) -> None:
    """Four sessions cancel due, later, parked, running, retrying and final jobs, at any moment: each ends once."""
    await create_steps(place)
    await place.connection.execute(
        "create function long(job_id bigint) returns void language plpgsql as $$ begin perform pg_sleep(600); end $$"
    )
    config = place.configure(MIXED + MORE)
    await place.started(place.spawn(config), place.spawn(config))
    answers = Answers()
    while report.injected < report.planned:
        ids = await _jobs(place)
        await asyncio.gather(*(_cancel_some(place, answers, ids[n::AT_ONCE]) for n in range(AT_ONCE)))
        report.injected = len(answers.given)
    await place.connection.execute(
        "select worker.cancel(id) from worker.job_queue where status in ('pending', 'running') and job_type = 'long'"
    )
    await place.connection.execute("update worker.job_queue set scheduled_at = now() where status = 'pending'")
    report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
    await _judge(place, report, answers)
    await place.judge(report)


async def _jobs(place: Place) -> list[int]:
    """Some of every kind: a few that hang in SQL, some in an hour, the rest at once."""
    newest = await place.connection.fetchval("select coalesce(max(id), 0) from worker.job_queue")
    await produce(place, 60, keys=4)
    await place.connection.execute(
        """
        select worker.enqueue('flaky', '{"ms": 20}') from generate_series(1, 12);
        select worker.enqueue('long') from generate_series(1, 6);
        select worker.enqueue('free', '{"ms": 5}', delay => '1 hour') from generate_series(1, 10);
        """
    )
    found = await place.connection.fetch("select id from worker.job_queue where id > $1", newest)
    return [row["id"] for row in found]


async def _cancel_some(place: Place, answers: Answers, ids: list[int]) -> None:
    """Half of them in any order, while they are done."""
    connection = await asyncpg.connect(place.dsn)
    try:
        for job in place.chance.sample(ids, len(ids) // 2):
            await asyncio.sleep(place.chance.uniform(0, 0.04))
            await answers.cancel(connection, job)
    finally:
        await connection.close()


async def _judge(place: Place, report: Report, answers: Answers) -> None:
    became = dict(await place.connection.fetch("select id, status from worker.job_queue"))
    for job, state, answer, when in answers.given:
        final = became[job]
        if answer == "running":
            report.expect(final in ("cancelled", "completed", "failed"), f"job {job} ({state}): asked, and is {final}")
            started = await place.connection.fetchval(STARTED_AFTER, job, when)
            report.expect(
                started == 0, f"job {job} ({state}) was started {started} times after its cancel was answered"
            )
        else:
            report.expect(final == answer, f"job {job} ({state}): answered {answer}, and is {final}")
    seen = Counter(f"{state}:{answer}>{became[job]}" for job, state, answer, _ in answers.given)
    report.figures["cancels"] = dict(seen.most_common())
    states = {state for _, state, _, _ in answers.given}
    missing = {"due", "later", "parked", "running", "retrying", "completed"} - states
    report.expect(not missing, f"nothing was cancelled while {missing}: the experiment showed nothing of it")
