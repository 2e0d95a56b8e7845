"""A queue with a long past, a far future, a paused type and long lines, and planner statistics that lie about it.

Written by the owner as it stands, past the triggers; the process `ME` is alive, `DEAD` is declared dead.
"""

import asyncpg

from tests.sql.conftest import Queue

ME, DEAD = 1, 2
TYPES = ("quiet", "busy", "paused", "keyed", "called", "held", "graph")
EACH = 10_000

PAST = f"""
    insert into worker.process (host, pid, version, types, slots, lease, started_at, beat_at, lease_until, open_batch,
      dead_at)
    select 'host', 1, '0', '{{}}', 100, '1 h', now(), now(), now() + interval '1 h', 1000,
      case when n = {DEAD} then now() end
    from generate_series({ME}, {DEAD}) n;
    insert into worker.job_queue (job_type, status, queued, trouble, priority, scheduled_at, max_attempts, tenant_id,
      correlation_id, unique_while, created_at, started_at, finished_at, claimed_by, batch, claim, parent_id)
    select case n % 3 when 0 then 'quiet' when 1 then 'graph' else 'busy' end,
      case when n % 50 = 0 then 'failed' else 'completed' end, false, n % 50 = 0, 100, at, 5, 't' || n % 100,
      n::text, 'waiting', at, at, at, {ME}, n / 500, n, nullif(n % 10, 0)
    from generate_series(1, {EACH}) n
    cross join lateral (select now() - interval '10 days' + n * interval '1 s') a (at);
    insert into worker.job_step (job_id, name, status, claim, finished_at)
    select j.id, name, 'completed', j.claim, now() from worker.job_queue j cross join unnest('{{a,b}}'::text[]) name
    where j.job_type = 'graph';
"""

PRESENT = f"""
    insert into worker.job_queue (job_type, priority, scheduled_at, max_attempts, correlation_id, unique_while,
      created_at, expires_at)
    select 'busy', 0, now() + interval '1 day' + n * interval '1 s', 5, n::text, 'waiting', now(),
      case when n % 10 = 0 then now() + interval '2 days' end from generate_series(1, {EACH}) n
    union all
    select 'paused', 0, now() - interval '1 h', 5, n::text, 'waiting', now(), null from generate_series(1, {EACH}) n
    union all
    select 'quiet', 50, now() - interval '1 min', 5, n::text, 'waiting', now(), null from generate_series(1, 40) n;
    insert into worker.job_queue (job_type, status, queued, parked, coalesced, priority, scheduled_at, max_attempts,
      correlation_id, unique_key, held_key, concurrency_key, unique_while, created_at, claimed_by,
      batch, claim, started_at)
    select kind, state, state = 'pending' and not parked, parked, kind = 'called', 100, now() - interval '1 s', 5,
      n::text, held, held, key, 'waiting', now(), by, by * 1000, n + 1000000, case when state = 'running' then now() end
    from (
      select n, 'keyed' as kind, 'pending' as state, true as parked, 'line ' || n % 1000 as key, null as held,
        null::int as by
      from generate_series(1, 4000) n
      union all select n, 'keyed', 'running', false, 'line ' || n, null, {ME} from generate_series(1, 100) n
      union all select n, 'graph', 'running', false, null, null, {ME} + n % 2 from generate_series(1, 400) n
      union all select n, 'keyed', 'pending', false, 'free ' || n, null, null from generate_series(1, 40) n
      union all select n, 'called', 'pending', n > 1, 'coalesce ' || n % 2, null, null from generate_series(1, 2000) n
      union all select n, 'held', 'pending', false, null, 'held ' || n, null from generate_series(1, 2000) n
      union all select n, 'few', 'pending', false, null, null, null from generate_series(1, 2000) n
      union all select n, 'few', 'running', false, null, null, {ME} from generate_series(1, 10) n
      union all select n, 'rated', 'pending', false, null, null, null from generate_series(1, 2000) n) made;
    update worker.type_slot s set job_id = j.id
    from (select id, row_number() over () as n from worker.job_queue where job_type = 'few' and status = 'running') j
    where s.slot = j.n;
    insert into worker.job_queue (job_type, priority, scheduled_at, max_attempts, correlation_id, unique_while,
      created_at, tenant_id, fair)
    select 'turn', 100, now() - interval '1 s', 5, n::text, 'waiting', now(), 't' || n % 200, true
    from generate_series(1, 4000) n;
    insert into worker.key_slot (key, job_id)
    select concurrency_key, id from worker.job_queue where status = 'running' and concurrency_key is not null;
    insert into worker.job_step (job_id, name, status, claim, tags)
    select id, 'a', 'completed', claim, '{{x}}' from worker.job_queue where job_type = 'graph' and status = 'running';
    insert into worker.kept (job_id, enqueued_by)
    select id, 'postgres' from worker.job_queue where job_type = 'held' limit 50;
    insert into worker.job_queue (job_type, priority, scheduled_at, max_attempts, correlation_id, unique_while,
      created_at, expires_at)
    select 'quiet', 900, now() + interval '1 h', 5, n::text, 'waiting', now(), now() - interval '1 s'
    from generate_series(1, 50) n;
"""

BOTH = "in ('worker.job_queue'::regclass, 'worker.job_step'::regclass)"
STATISTICS = f"update pg_class set reltuples = {{tuples}}, relpages = {{pages}} where oid {BOTH}"
FORGET = f"delete from pg_statistic where starelid {BOTH}"

ANALYZE = "analyze worker.job_queue, worker.job_step, worker.kept, worker.key_slot, worker.type_slot, worker.job_type"

STATES = {
    "as it was when all was finished": "select",
    "as it is": ANALYZE,
    "a handful of rows": f"{ANALYZE}; {STATISTICS.format(tuples=10, pages=1_000_000)}",
    "a billion rows": f"{ANALYZE}; {STATISTICS.format(tuples=1_000_000_000, pages=10)}",
    "never analysed": f"{FORGET}; {STATISTICS.format(tuples=-1, pages=0)}",
    "analysed when it was empty": f"{FORGET}; {STATISTICS.format(tuples=0, pages=0)}",
}


async def crowd(db: asyncpg.Connection) -> None:
    """Fill an empty queue; statistics are those of its past."""
    queue = Queue(db)
    for name, keys in {
        "keyed": {"concurrency_key": "{line}"},
        "called": {"coalesce_key": "{line}"},
        "held": {"unique_key": "held {n}"},
        "graph": {"then": ["quiet"], "announces": "tags"},
        "few": {"limit": 20},
        "rated": {"rate": {"limit": 5, "per": 60, "key": "{k}"}},
        "turn": {"fair": True},
        "bounded": {"backlog": {"max": 100, "then": "refuse"}},
    }.items():
        await queue.declare(name, **keys)
    for name in ("quiet", "busy", "paused"):
        await queue.declare(name)
    await db.execute("update worker.job_type set paused = true where name = 'paused'")
    for table in ("job_queue", "job_step", "kept", "key_slot", "job_type", "type_slot", "rate"):
        await db.execute(f"alter table worker.{table} set (autovacuum_enabled = false)")
    await db.execute(PAST)
    await db.execute("analyze worker.job_queue, worker.job_step, worker.job_type")
    await db.execute(PRESENT)
