-- What the first page reads: every type, daemon and schedule at one glance. Nothing here counts without a bound: a count
-- that reaches it says "that many or more", so that a full queue is looked at as quickly as an empty one.

create or replace function worker.queued_lines()
returns table (job_type text, due bigint, later bigint, oldest timestamptz, next timestamptz)
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off
as $$
  -- From line to line of the index (type, priority): a line costs a look, not its rows.
  with recursive line (job_type, priority, n) as (
    (select q.job_type::text, q.priority::smallint, 1 from worker.job_queue q where q.queued
     order by q.job_type, q.priority limit 1)
    union all
    select f.job_type, f.priority, l.n + 1 from line l cross join lateral (
      select q.job_type::text, q.priority::smallint from worker.job_queue q
      where q.queued and (q.job_type, q.priority) > (l.job_type, l.priority)
      order by q.job_type, q.priority limit 1) f
    where l.n < 500
  )
  select l.job_type, d.rows, s.rows, o.at, s.at
  from line l
  cross join lateral (
    select count(*) as rows from (
      select from worker.job_queue q where q.queued and q.job_type = l.job_type and q.priority = l.priority
        and q.scheduled_at <= (select worker.now()) limit 5000) c) d
  left join lateral (
    select q.scheduled_at as at from worker.job_queue q where q.queued and q.job_type = l.job_type and q.priority = l.priority
      and q.scheduled_at <= (select worker.now()) order by q.job_type, q.priority, q.scheduled_at limit 1) o on true
  cross join lateral (
    select count(*) as rows, min(c.scheduled_at) as at from (
      select q.scheduled_at from worker.job_queue q where q.queued and q.job_type = l.job_type and q.priority = l.priority
        and q.scheduled_at > (select worker.now()) limit 5000) c) s
$$;
comment on function worker.queued_lines() is
  'Queued rows per type and priority: due, later (each up to 5,000), when the oldest was due and when the next will be; at most 500 lines';

create or replace function worker.type_overview() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set jit = off
as $$
  with queued as (
    select l.job_type, sum(l.due) as due, sum(l.later) as later, min(l.oldest) as oldest, min(l.next) as next
    from worker.queued_lines() l group by l.job_type
  ), parked as (
    select p.job_type, count(*) as parked
    from (select q.job_type::text from worker.job_queue q where q.parked limit 5000) p group by p.job_type
  ), running as (
    select j.job_type::text, count(*) as running, min(j.started_at) as began
    from worker.job_queue j where j.id = any (worker.running_ids(null, 5000)) group by j.job_type
  ), names as (
    select t.name from worker.job_type t union select q.job_type from queued q union select p.job_type from parked p
    union select r.job_type from running r
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'job_type', n.name, 'declared', t.name is not null, 'enabled', coalesce(t.enabled, false), 'paused', coalesce(t.paused, false),
    'fallback', coalesce(t.fallback, false), 'daemons', (
      select count(*) from worker.process p where p.dead_at is null and p.stopped_at is null
        and p.lease_until > worker.now() and n.name = any (p.types)),
    'due', coalesce(q.due, 0), 'later', coalesce(q.later, 0), 'parked', coalesce(k.parked, 0), 'running', coalesce(r.running, 0),
    'oldest_due', extract(epoch from worker.now() - q.oldest), 'next_at', q.next,
    'oldest_running', extract(epoch from worker.now() - r.began), 'limit', t.limits -> 'running', 'priority', t.priority,
    'max_attempts', t.max_attempts, 'declared_at', t.declared_at) order by n.name), '[]')
  from names n left join worker.job_type t on t.name = n.name left join queued q on q.job_type = n.name
  left join parked k on k.job_type = n.name left join running r on r.job_type = n.name
$$;
comment on function worker.type_overview() is
  'Every type, undeclared ones included, with its switches and its jobs that are not at their end; counts stop at 5,000 (a line of due ones, later ones, all parked, all running)';

create or replace function worker.failure_kinds()
returns table (id bigint, job_type text, finish_reason text, error text, finished_at timestamptz, jobs bigint)
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
  -- Errors that differ in their numbers only are of one kind.
  select max(k.id), k.job_type, k.finish_reason, (array_agg(k.message order by k.id desc))[1], max(k.finished_at), count(*)
  from (
    select q.id, q.job_type::text, q.status, q.finish_reason, q.finished_at, left(q.errors -> -1 ->> 'message', 300) as message
    from worker.job_queue q where q.trouble order by q.id desc limit 1000) k
  where k.status = 'failed'
  group by k.job_type, k.finish_reason, regexp_replace(left(k.message, 120), '[0-9]+', '#', 'g')
  order by 1 desc limit 8
$$;
comment on function worker.failure_kinds() is
  'The latest kinds of failures among the newest 1,000 failed and cancelled jobs: the newest job of each, and how many of them are of it';

create or replace function worker.overview() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
  select jsonb_build_object(
    'at', worker.now(),
    'types', worker.type_overview(),
    'daemons', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'id', p.id, 'host', p.host, 'pid', p.pid, 'version', p.version, 'types', p.types, 'slots', p.slots,
        'state', case when p.dead_at is not null then 'dead' when p.lease_until < worker.now() then 'silent' else 'alive' end,
        'unrescued', p.dead_at is not null and p.emptied_at is null,
        'running', (select count(*) from worker.job_queue j
                    where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'),
        'started_at', p.started_at, 'beat', extract(epoch from worker.now() - p.beat_at)) order by p.id), '[]')
      from (select * from worker.process o where o.stopped_at is null and (o.dead_at is null or o.dead_at > worker.now() - interval '1 hour')
            order by o.id desc limit 200) p),
    'schedules', (select coalesce(jsonb_agg(to_jsonb(s) order by s.next_at nulls last, s.name), '[]') from worker.schedules s),
    'failures', (select coalesce(jsonb_agg(to_jsonb(f) order by f.id desc), '[]') from worker.failure_kinds() f),
    'oldest_transaction', extract(epoch from worker.oldest_transaction()),
    'oldest_transaction_by', worker.oldest_transaction_by(),
    'notification_queue_use', pg_notification_queue_usage())
$$;
comment on function worker.overview() is
  'Types, daemons, schedules, the latest failures, and what may keep the queue from going on, in one bounded answer';

create or replace function worker.job_page(id bigint) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp set jit = off
as $$
  with job as (
    select q.id, q.job_type, q.parent_id, q.claim from worker.job_queue q where q.id = job_page.id
  ), recent as materialized (
    select r.id from job j cross join lateral (
      select q.id from worker.job_queue q where q.job_type = j.job_type and q.id < j.id order by q.id desc limit 20) r
  ), usual as (
    select s.name, percentile_cont(0.5) within group (order by extract(epoch from s.finished_at - s.started_at)::double precision) as median
    from recent r cross join lateral (
      select t.name, t.started_at, t.finished_at from worker.job_step t where t.job_id = r.id and t.status = 'completed' offset 0) s
    group by s.name
  )
  select worker.show_job(j.id) || jsonb_build_object(
    'now', clock_timestamp(),
    'earlier', (select coalesce(jsonb_agg(s.name), '[]') from worker.job_step s
                where s.job_id = j.id and s.status = 'completed' and s.claim <> j.claim),
    'usual', (select coalesce(jsonb_object_agg(u.name, u.median), '{}') from usual u),
    'parent', (select jsonb_build_object('id', p.id, 'job_type', p.job_type, 'status', p.status)
               from worker.job_queue p where p.id = j.parent_id),
    'family', (
      select coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'job_type', c.job_type, 'label', c.label, 'status', c.status,
        'created_at', c.created_at, 'duration', extract(epoch from c.duration), 'error', left(c.last_error, 200)) order by c.id), '[]')
      from worker.jobs c where c.id in (
        select f.id from (select k.id from worker.job_queue k where k.parent_id = j.id limit 1000) f order by f.id limit 50)),
    'explained', (select to_jsonb(e) from worker.explain_job(j.id) e))
  from job j
$$;
comment on function worker.job_page(bigint) is
  'worker.show_job and what its page tells beside: which steps were done by an earlier attempt, the usual seconds of each, parent, children and follow-ups, and worker.explain_job; null when there is none';

revoke all on function worker.queued_lines(), worker.type_overview(), worker.failure_kinds(), worker.overview(), worker.job_page(bigint) from public;
grant execute on function worker.queued_lines(), worker.type_overview(), worker.failure_kinds(), worker.overview(), worker.job_page(bigint) to worker_read;
