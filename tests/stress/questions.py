"""What the checker asks: each question answers with rows that break a promise, and so ought to answer with none."""

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
    having count(*) > 1 + (select count(*) from evidence.event e where e.job_id = h.job_id and e.event = 'retry')
    limit 20
"""
REVIVED = """
    select h.job_id, h.old_status, h.new_status from evidence.hist h
    where h.old_status in ('completed', 'skipped', 'failed', 'cancelled') and h.new_status <> h.old_status
      and not exists (select from evidence.event e where e.job_id = h.job_id and e.event = 'retry')
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
      and not exists (select from evidence.event e where e.job_id = h.job_id and e.event = 'rescue')
    limit 20
"""
EXECUTED_SIDE_BY_SIDE = """
    select job_id, step, at from evidence.overlap limit 20
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
# I4: who is due does not wait while a process that lives has room for it all the time, and a process that is silent
# beyond its lease is found by those that live. The bounds are those of the worst that is promised, at default settings;
# jobs with a concurrency key may wait for each other.
WAITED_IN_VAIN = """
    with edge as (
      select *, coalesce(lead(at) over (partition by job_id order by n), clock_timestamp()) as next from evidence.hist
    ), moved as (
      select n, at, process as id, 1 as by from evidence.hist where new_status = 'running' and process is distinct from
        case when old_status = 'running' then old_process end
      union all
      select n, at, old_process, -1 from evidence.hist where old_status = 'running' and old_process is distinct from
        case when new_status = 'running' then process end
    ), load as (select id, at, sum(by) over (partition by id order by n) as held from moved)
    select e.job_id, p.id, extract(epoch from e.next - greatest(e.at, e.scheduled_at))::int
    from edge e join worker.job_queue j on j.id = e.job_id and j.concurrency_key is null
    join worker.job_type t on t.name = e.job_type and t.enabled and not t.paused
    join worker.process p on e.job_type = any (p.types) and p.started_at <= greatest(e.at, e.scheduled_at)
      and coalesce(p.stopped_at, p.beat_at + interval '1 s') >= e.next
      and not exists (select from evidence.silence s where s.process = p.id and s.began < e.next
                      and s.ended > greatest(e.at, e.scheduled_at))
    where e.new_status = 'pending' and e.next > greatest(e.at, e.scheduled_at) + interval '40 s'
      and coalesce(e.scheduled_at < j.expires_at, true)
      and 4 > (select coalesce(max(l.held), 0) from load l
               where l.id = p.id and l.at <= e.next and l.at >= coalesce((select max(b.at) from load b
                 where b.id = p.id and b.at <= greatest(e.at, e.scheduled_at)), '-infinity'))
      and p.slots >= 4
    limit 20
"""
SILENT_AND_NOT_FOUND = """
    select p.id, p.beat_at, p.dead_at from worker.process p
    where p.stopped_at is null and coalesce(p.dead_at, 'infinity') > p.beat_at + p.lease + interval '10 s'
      and exists (select from worker.process q where q.id <> p.id and q.started_at <= p.beat_at
        and q.beat_at > p.beat_at + p.lease + interval '10 s'
        and not exists (select from evidence.silence s where s.process = q.id and s.ended > p.beat_at
                        and s.began < p.beat_at + p.lease + interval '10 s')) limit 20
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
    where not exists (select from evidence.event e where e.job_id = f.job_id and e.event = 'retry')
    group by 1, 2 having count(*) > 1 limit 20
"""
MARKS_WITHOUT_EFFECT = """
    select s.job_id, s.name from worker.job_step s
    where s.status = 'completed' and exists (select from evidence.fx)
      and not exists (select from evidence.fx f where f.job_id = s.job_id and f.step = s.name) limit 20
"""
# I8: what follows a completed job is there, was received under one id unless it is shown as failed, and nothing was
# sent of work that never came to be.
NEVER_SENT = """
    select j.id, j.job_type from worker.job_queue j join evidence.hook h on h.job_type = j.job_type
    where j.status = 'completed' and not exists (select from evidence.receipt r where r.job_id = j.id) limit 20
"""
NEVER_ANNOUNCED = """
    select p.id, next_type from worker.job_queue p join worker.job_type t on t.name = p.job_type
    cross join unnest(t.then_types) next_type
    where p.status = 'completed' and p.finish_reason is distinct from 'fallback'
      and (t.announces = 'result'
           or exists (select from worker.job_step s where s.job_id = p.id and cardinality(s.tags) > 0))
      and not exists (select from worker.job_queue c where c.parent_id = p.id and c.job_type = next_type) limit 20
"""
ONE_CALL_TWO_NAMES = """
    select job_id, array_agg(distinct webhook_id) from evidence.receipt
    group by 1 having count(distinct webhook_id) > 1 limit 20
"""
SENT_OF_NOTHING = """
    select r.webhook_id, r.job_id from evidence.receipt r
    where not exists (select from evidence.hist h where h.job_id = r.job_id) limit 20
"""
# I9: what a daemon holds late is not more than what it held at most in the first half, and never passes a cap.
GREW = """
    with numbered as (
      select pid, what, value, row_number() over w as n, count(*) over (partition by pid, what) as of
      from evidence.gauge window w as (partition by pid, what order by at)
    ), told as (
      select pid, what, max(value) filter (where n <= of / 2) as base,
             min(value) filter (where n > of - 3) as last, max(of) as of
      from numbered group by 1, 2
    )
    select pid, what, base, last from told
    where of >= 16 and last > 1.1 * base + case what when 'rss_mb' then 24 else 4 end limit 20
"""
PASSED_ITS_CAP = """
    select g.pid, g.what, max(g.value), c.most from evidence.gauge g join evidence.cap c on c.what = g.what
    group by 1, 2, 4 having max(g.value) > c.most limit 20
"""
# I11: five seconds after a total fault began nobody says that it is ready, five seconds after its end everybody does.
READY_IN_AN_OUTAGE = """
    select r.pid, r.at from evidence.ready r join evidence.outage o
      on r.at > o.began + interval '5 s' and r.at < o.ended where r.ready limit 20
"""
NOT_READY_AFTER_ONE = """
    select r.pid, r.at from evidence.ready r where not r.ready
      and exists (select from evidence.outage o where r.at > o.ended + interval '5 s')
      and not exists (select from evidence.outage o where r.at between o.began and o.ended + interval '5 s') limit 20
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
# I14: what a row says of time is what the database's own clock said, and nothing begins before it is due.
ANOTHER_CLOCK = """
    select h.job_id, h.new_status, h.at, q.started_at, q.finished_at, q.scheduled_at
    from evidence.hist h join worker.job_queue q on q.id = h.job_id
    where (h.n = (select max(l.n) from evidence.hist l where l.job_id = h.job_id)
           and h.new_status not in ('pending', 'running') and abs(extract(epoch from q.finished_at - h.at)) > 60)
      or (h.n = (select min(f.n) from evidence.hist f where f.job_id = h.job_id and f.new_status = 'running')
          and abs(extract(epoch from q.started_at - h.at)) > 60)
      or (h.old_status = 'running' and h.new_status = 'pending' and h.scheduled_at < h.at - interval '1 min'
          -- handed back unharmed, it keeps its place in the line
          and not exists (select from evidence.hist e
                          where e.job_id = h.job_id and e.n < h.n and e.scheduled_at = h.scheduled_at))
    limit 20
"""
STARTED_EARLY = """
    select h.job_id, h.scheduled_at, h.at from evidence.hist h
    join worker.job_queue q on q.id = h.job_id and not q.coalesced
    where h.old_status = 'pending' and h.new_status = 'running' and h.at < h.scheduled_at limit 20
"""

QUESTIONS = {
    "I1": {"jobs never ended": NEVER_ENDED, "rows disappeared": LOST_ROWS, "ended twice": ENDED_TWICE,
           "left its end": REVIVED},
    "I2": {"one claim, two jobs": CLAIMED_TWICE, "taken from a living holder": TAKEN_FROM_THE_LIVING,
           "executed side by side": EXECUTED_SIDE_BY_SIDE},
    "I3": {"step marked under a stale claim": STALE_MARKS, "result written under a stale claim": STALE_RESULTS},
    "I4": {"due, and waited in vain": WAITED_IN_VAIN, "silent, and not found": SILENT_AND_NOT_FOUND},
    "I6": {"more attempts than allowed": TOO_MANY_ATTEMPTS, "more attempts than claims": MORE_ATTEMPTS_THAN_CLAIMS},
    "I7": {"a step took effect twice": EFFECTS_BEYOND_ONE, "a mark without its effect": MARKS_WITHOUT_EFFECT},
    "I8": {"completed, and nobody received it": NEVER_SENT, "completed, and nothing follows": NEVER_ANNOUNCED,
           "one call under two ids": ONE_CALL_TWO_NAMES, "a call of work that is not there": SENT_OF_NOTHING},
    "I9": {"grew and did not come back": GREW, "passed its cap": PASSED_ITS_CAP},
    "I11": {"ready in an outage": READY_IN_AN_OUTAGE, "not ready after one": NOT_READY_AFTER_ONE},
    "I13": {"connections of daemons are left": ORPHANS, "idle in a transaction": IDLE_IN_TRANSACTION,
            "advisory locks are left": ADVISORY_LOCKS, "keys held by nobody": KEYS_OF_NOBODY},
    "I14": {"a time of another clock": ANOTHER_CLOCK, "started before it was due": STARTED_EARLY},
}  # fmt: skip
