"""Decides from the evidence alone whether the promises held (I1 to I14 of the acceptance suite).

It knows the words of the public contract, job_queue's statuses and columns, and nothing of the daemon's code. Each
question answers with the rows that break a promise; none is the only good answer. `tests/stress/naive.py` is the
worker that it must catch.
"""

from dataclasses import dataclass

import asyncpg

# I1: each job that was inserted ends once; it leaves its end only by an operator's retry; no row disappears.
NEVER_ENDED = """
    select id, status from worker.job_queue where status in ('pending', 'running') limit 20
"""
LOST_ROWS = """
    select h.job_id from evidence.hist h where h.op = 'INSERT'
    except select id from worker.job_queue
    except select job_id from evidence.hist where op = 'DELETE' limit 20
"""
ENDED_TWICE = """
    select h.job_id, count(*) from evidence.hist h
    where h.new_status in ('completed', 'skipped', 'failed', 'cancelled') and h.old_status in ('pending', 'running')
    group by 1
    having count(*) > 1 + (select count(*) from worker.job_event e where e.job_id = h.job_id and e.event = 'retry')
    limit 20
"""
REVIVED = """
    select h.job_id, h.old_status, h.new_status from evidence.hist h
    where h.old_status in ('completed', 'skipped', 'failed', 'cancelled') and h.new_status <> h.old_status
      and not exists (select from worker.job_event e where e.job_id = h.job_id and e.event = 'retry')
    limit 20
"""
# I2: a claim begins once, and a running row changes its holder only by way of a rescue.
CLAIMED_TWICE = """
    select new_claim, count(distinct job_id) from evidence.hist where new_status = 'running'
      and new_claim is distinct from old_claim group by 1 having count(*) > 1 limit 20
"""
TAKEN_FROM_THE_LIVING = """
    select h.job_id, h.old_claim, h.new_claim from evidence.hist h
    where h.old_status = 'running' and h.new_status = 'running' and h.old_claim <> h.new_claim
      and not exists (select from worker.job_event e where e.job_id = h.job_id and e.event = 'rescue')
    limit 20
"""
# I3: what was written bears the claim that was current.
STALE_MARKS = """
    select job_id, step, claim, job_claim from evidence.marks
    where status = 'completed' and (claim is distinct from job_claim or job_status <> 'running') limit 20
"""
STALE_RESULTS = """
    select job_id, result_claim, old_claim from evidence.hist
    where new_status = 'completed' and result_claim is not null and result_claim <> old_claim limit 20
"""
# I6: the counter never passes what is allowed, and nothing ends as exhausted before it.
TOO_MANY_ATTEMPTS = """
    select job_id, new_attempt, max_attempts from evidence.hist where new_attempt > max_attempts limit 20
"""
MORE_ATTEMPTS_THAN_CLAIMS = """
    select q.id, q.attempt from worker.job_queue q
    where q.attempt > (select count(*) from evidence.hist h where h.job_id = q.id and h.new_status = 'running'
                         and h.new_claim is distinct from h.old_claim) limit 20
"""
# I7: each step of a completed job took effect once, of any other at most once.
EFFECTS_BEYOND_ONE = """
    select f.job_id, f.step, count(*) from evidence.fx f
    where not exists (select from worker.job_event e where e.job_id = f.job_id and e.event = 'retry')
    group by 1, 2 having count(*) > 1 limit 20
"""
MARKS_WITHOUT_EFFECT = """
    select s.job_id, s.name from worker.job_step s
    where s.status = 'completed' and exists (select from evidence.fx)
      and not exists (select from evidence.fx f where f.job_id = s.job_id and f.step = s.name) limit 20
"""
# I13: nothing of a daemon is left once the daemons are gone.
ORPHANS = """
    select pid, application_name, state from pg_stat_activity
    where datname = current_database() and application_name ~ '^worker ' limit 20
"""
IDLE_IN_TRANSACTION = """
    select pid, application_name from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'
      and clock_timestamp() - state_change > interval '1 s' limit 20
"""
ADVISORY_LOCKS = """
    select pid, objid from pg_locks
    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
      and pid <> pg_backend_pid() limit 20
"""
KEYS_OF_NOBODY = """
    select 'slot', s.key from worker.key_slot s where not exists
      (select from worker.job_queue q where q.concurrency_key = s.key and q.status = 'running')
    union all select 'parked', id::text from worker.job_queue where parked limit 20
"""


@dataclass(frozen=True)
class Violation:
    """A promise that did not hold, and the first rows that show it."""

    invariant: str
    what: str
    rows: tuple[tuple[object, ...], ...]

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}: {list(self.rows[:3])}"


QUESTIONS = {
    "I1": {"jobs never ended": NEVER_ENDED, "rows disappeared": LOST_ROWS, "ended twice": ENDED_TWICE,
           "left its end": REVIVED},
    "I2": {"one claim, two jobs": CLAIMED_TWICE, "taken from a living holder": TAKEN_FROM_THE_LIVING},
    "I3": {"step marked under a stale claim": STALE_MARKS, "result written under a stale claim": STALE_RESULTS},
    "I6": {"more attempts than allowed": TOO_MANY_ATTEMPTS, "more attempts than claims": MORE_ATTEMPTS_THAN_CLAIMS},
    "I7": {"a step took effect twice": EFFECTS_BEYOND_ONE, "a mark without its effect": MARKS_WITHOUT_EFFECT},
    "I13": {"connections of daemons are left": ORPHANS, "idle in a transaction": IDLE_IN_TRANSACTION,
            "advisory locks are left": ADVISORY_LOCKS, "keys held by nobody": KEYS_OF_NOBODY},
}  # fmt: skip


async def violations(connection: asyncpg.Connection, *but: str) -> list[Violation]:
    """Ask every question, but those of the invariants named."""
    found = []
    for invariant, questions in QUESTIONS.items():
        for what, question in questions.items():
            if invariant not in but and (rows := await connection.fetch(question)):
                found.append(Violation(invariant, what, tuple(tuple(row) for row in rows)))
    return found
