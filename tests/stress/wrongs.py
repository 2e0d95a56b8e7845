"""A worker that is wrong in every way that the checker claims to see, each under the answer that it must give."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import asyncpg

from tests.stress.checker import CANARY, SECRETS

CLAIM = """
    update worker.job_queue set status = 'running', queued = false, claim = nextval('worker.claim_seq'),
        attempt = attempt + 1, started_at = coalesce(started_at, now()), claimed_by = $2 where id = $1 returning claim
"""
AGAIN = "update worker.job_queue set status = 'pending', queued = true, finished_at = null where id = $1"
FINISH = """
    update worker.job_queue set status = 'completed', finished_at = coalesce($3, now()), result = $2::jsonb
    where id = $1
"""
MARK = """
    insert into worker.job_step (job_id, name, status, claim) values ($1, 'a', 'completed', $2)
    on conflict (job_id, name) do update set status = 'completed', claim = excluded.claim
"""
PROCESS = """
    insert into worker.process (host, pid, version, types, slots, lease, started_at, beat_at, lease_until, stopped_at)
    values ('naive', 0, '0', '{work}', 8, '3 s', now() - $1 * interval '1 min', now() - $2 * interval '1 min', now(),
      case when $2 = 0 then now() + interval '1 min' end)
    returning id
"""


class Naive:
    """Sessions of a worker without scruples; they are left open until the checker has looked."""

    def __init__(self, dsn: str, log: Path, ending: AsyncExitStack) -> None:
        self._dsn = dsn
        self._ending = ending
        self.log = log

    async def connect(self, name: str = "naive") -> asyncpg.Connection:
        connection = await asyncpg.connect(self._dsn, server_settings={"application_name": name})
        self._ending.push_async_callback(connection.close, timeout=5)
        return connection

    async def start(self, job: str = "work", by: int | None = None) -> tuple[asyncpg.Connection, int, int]:
        """A session, a job, and the claim under which it runs."""
        db = await self.connect()
        job_id = await db.fetchval("select worker.enqueue($1)", job)
        return db, job_id, await db.fetchval(CLAIM, job_id, by)


async def removes(naive: Naive) -> None:
    db, job, _ = await naive.start()
    async with db.transaction():
        await db.execute("set local session_replication_role = replica")  # as one whose trace is gone, too
        await db.execute("delete from worker.job_queue where id = $1", job)


async def ends_it_twice(naive: Naive) -> None:
    db, job, _ = await naive.start()
    await db.execute(FINISH, job, "{}", None)
    await revives(naive, db, job)
    await db.fetchval(CLAIM, job, None)
    await db.execute(FINISH, job, "{}", None)


async def revives(naive: Naive, db: asyncpg.Connection | None = None, job: int = 0) -> None:
    if db is None:
        db, job, _ = await naive.start()
        await db.execute(FINISH, job, "{}", None)
    await db.execute(AGAIN, job)


async def claims_two_as_one(naive: Naive) -> None:
    db, _, claim = await naive.start()
    second = await db.fetchval("select worker.enqueue('work')")
    await db.execute(CLAIM.replace("nextval('worker.claim_seq')", str(claim)), second, None)


async def claims_what_runs(naive: Naive) -> None:
    db, job, _ = await naive.start()
    await db.fetchval(CLAIM, job, None)


async def runs_it_beside_itself(naive: Naive) -> None:
    db, job, _ = await naive.start()
    other = await naive.connect()
    async with db.transaction():
        await db.execute("select evidence.step($1, 'a', 0)", job)
        await other.execute("select evidence.step($1, 'a', 0)", job)


async def marks_what_it_lost(naive: Naive) -> None:
    db, job, claim = await naive.start()
    await db.fetchval(CLAIM, job, None)
    await db.execute(MARK, job, claim)


async def settles_what_it_lost(naive: Naive) -> None:
    db, job, claim = await naive.start()
    await db.fetchval(CLAIM, job, None)
    await db.execute(FINISH, job, f'{{"claim": {claim}}}', None)


async def idles(naive: Naive) -> None:
    """A minute, which the evidence is told."""
    db = await naive.connect()
    job = await db.fetchval("select worker.enqueue('work', scheduled_at => now() - interval '1 min')")
    await db.execute("update evidence.hist set at = at - interval '1 min'")
    await db.execute(CLAIM, job, await db.fetchval(PROCESS, 2, 0))


async def dies_unseen(naive: Naive) -> None:
    db = await naive.connect()
    await db.execute(PROCESS, 2, 1)
    await db.execute(PROCESS, 2, 0)


async def retries_for_ever(naive: Naive) -> None:
    db, job, _ = await naive.start()
    for _ in range(5):
        await db.execute(AGAIN, job)
        await db.fetchval(CLAIM, job, None)


async def counts_double(naive: Naive) -> None:
    db, job, _ = await naive.start()
    await db.execute("update worker.job_queue set attempt = attempt + 1 where id = $1", job)


async def crashes_between_effect_and_mark(naive: Naive) -> None:
    db, job, claim = await naive.start()
    await db.execute("select evidence.step($1, 'a', 0)", job)
    await db.execute("select evidence.step($1, 'a', 0)", job)
    await db.execute(MARK, job, claim)


async def crashes_between_mark_and_effect(naive: Naive) -> None:
    db, job, claim = await naive.start()
    await db.execute("select evidence.step($1, 'b', 0)", job)
    await db.execute(MARK, job, claim)


async def never_calls(naive: Naive) -> None:
    db, job, _ = await naive.start("hook")
    await db.execute(FINISH, job, "{}", None)


async def never_announces(naive: Naive) -> None:
    db, job, _ = await naive.start("parent")
    await db.execute(FINISH, job, "{}", None)


async def calls_anew_each_time(naive: Naive) -> None:
    db, job, _ = await naive.start("hook")
    for name in ("one", "two"):
        await db.execute("insert into evidence.receipt (webhook_id, job_id) values ($1, $2)", name, job)


async def calls_before_the_commit(naive: Naive) -> None:
    db = await naive.connect()
    transaction = db.transaction()
    await transaction.start()
    job = await db.fetchval("select worker.enqueue('hook')")
    await (await naive.connect()).execute("insert into evidence.receipt (webhook_id, job_id) values ('one', $1)", job)
    await transaction.rollback()


async def leaks(naive: Naive) -> None:
    db = await naive.connect()
    await db.execute(
        "insert into evidence.gauge select 1, 'files', 10 + n, now() + n * interval '1 s' from generate_series(1, 20) n"
    )


async def takes_all_there_is(naive: Naive) -> None:
    db = await naive.connect()
    await db.execute("insert into evidence.cap values ('backends', 20)")
    await db.execute("insert into evidence.gauge select 1, 'backends', 21, now() from generate_series(1, 9)")


async def says_ready(naive: Naive, ready: bool = True, ago: int = 40) -> None:
    """While everything was down, from a minute ago until half a minute ago."""
    db = await naive.connect()
    await db.execute("insert into evidence.outage values (now() - interval '1 min', now() - interval '30 s')")
    await db.execute("insert into evidence.ready values (1, $1, now() - $2 * interval '1 s')", ready, ago)


async def talks(naive: Naive) -> None:
    naive.log.write_text(f"connecting to postgresql://worker:{CANARY}@localhost/queue\n")


async def leaves_a_transaction(naive: Naive) -> None:
    db = await naive.connect()
    await db.execute("begin; select 1")
    await asyncio.sleep(1.2)


async def leaves(naive: Naive, statement: str) -> None:
    await (await naive.connect()).execute(statement)


async def has_a_clock_of_its_own(naive: Naive) -> None:
    db, job, _ = await naive.start()
    tomorrow = await db.fetchval("select now() + interval '1 day'")
    await db.execute(FINISH, job, "{}", tomorrow)


async def cannot_wait(naive: Naive) -> None:
    db = await naive.connect()
    await db.execute(CLAIM, await db.fetchval("select worker.enqueue('work', delay => interval '1 hour')"), None)


WRONGS: dict[str, Callable[[Naive], Awaitable[object]]] = {
    "jobs never ended": Naive.start,  # and forgets it
    "rows disappeared": removes,
    "ended twice": ends_it_twice,
    "left its end": revives,
    "one claim, two jobs": claims_two_as_one,
    "taken from a living holder": claims_what_runs,
    "executed side by side": runs_it_beside_itself,
    "step marked under a stale claim": marks_what_it_lost,
    "result written under a stale claim": settles_what_it_lost,
    "due, and waited in vain": idles,
    "silent, and not found": dies_unseen,
    "more attempts than allowed": retries_for_ever,
    "more attempts than claims": counts_double,
    "a step took effect twice": crashes_between_effect_and_mark,
    "a mark without its effect": crashes_between_mark_and_effect,
    "completed, and nobody received it": never_calls,
    "completed, and nothing follows": never_announces,
    "one call under two ids": calls_anew_each_time,
    "a call of work that is not there": calls_before_the_commit,
    "grew and did not come back": leaks,
    "passed its cap": takes_all_there_is,
    "ready in an outage": says_ready,
    "not ready after one": partial(says_ready, ready=False, ago=20),
    SECRETS: talks,
    "connections of daemons are left": partial(Naive.connect, name="worker control"),
    "idle in a transaction": leaves_a_transaction,
    "advisory locks are left": partial(leaves, statement="select pg_advisory_lock(1)"),
    "keys held by nobody": partial(leaves, statement="insert into worker.key_slot values ('k', 1)"),
    "a time of another clock": has_a_clock_of_its_own,
    "started before it was due": cannot_wait,
}
