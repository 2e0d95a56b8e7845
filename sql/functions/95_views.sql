-- What people read.

create or replace view worker.jobs with (security_invoker = true) as
select
  j.id, j.job_type, j.status,
  case
    when j.status <> 'pending' then j.status
    when j.parked then 'behind its key'
    when j.scheduled_at > worker.now() and j.phase = 'rate' then 'behind its rate'
    when j.scheduled_at > worker.now() and j.started_at is null then 'scheduled'
    when j.started_at is null then 'waiting'
    when j.attempt > 0 then 'retrying'
    when j.snoozes > 0 then 'snoozed'
    when j.scheduled_at > worker.now() then 'scheduled'  -- retried by a bulk with a rate
    else 'waiting' end as label,
  j.phase, j.progress, j.tenant_id, j.source, j.payload, j.priority, j.scheduled_at,
  j.attempt, j.max_attempts, j.rescues, j.snoozes, j.unique_key, j.concurrency_key, j.correlation_id, j.parent_id,
  j.claim, j.claimed_by, j.enqueued_by, j.cancel_requested_at, j.finish_reason, j.result, j.errors,
  j.errors -> -1 ->> 'message' as last_error,
  j.created_at, j.started_at, j.finished_at, j.expires_at, j.deadline_at,
  greatest(coalesce(j.started_at, j.finished_at, worker.now())
    - case when j.scheduled_at <= coalesce(j.started_at, j.finished_at, worker.now()) then j.scheduled_at else j.created_at end,
    interval '0') as wait,
  coalesce(j.finished_at, case when j.status = 'running' then worker.now() end) - j.started_at as duration,
  case when j.status = 'pending' then j.scheduled_at end as next_run,
  (select count(*) from worker.job_queue c where c.parent_id = j.id) as children
from worker.job_queue j;
comment on view worker.jobs is 'Every job, with a label for people, wait, duration, next run and number of children';

create or replace view worker.job_stats with (security_invoker = true) as
select
  j.job_type,
  count(*) filter (where j.status = 'pending') as pending,
  count(*) filter (where j.status = 'running') as running,
  count(*) filter (where j.status = 'completed') as completed,
  count(*) filter (where j.status = 'skipped') as skipped,
  count(*) filter (where j.status = 'failed') as failed,
  count(*) filter (where j.status = 'cancelled') as cancelled,
  round(100.0 * count(*) filter (where j.status = 'completed')
    / nullif(count(*) filter (where j.status in ('completed', 'failed')), 0), 2) as success_rate,
  percentile_cont(0.5) within group (order by extract(epoch from j.wait)) as wait_p50,
  percentile_cont(0.95) within group (order by extract(epoch from j.wait)) as wait_p95,
  percentile_cont(0.5) within group (order by extract(epoch from j.duration)) as duration_p50,
  percentile_cont(0.95) within group (order by extract(epoch from j.duration)) as duration_p95,
  max(j.finished_at) as last_finished_at
from worker.jobs j
where j.created_at > worker.now() - coalesce(nullif(current_setting('worker.stats_window', true), '')::interval, interval '24 hours')
   or j.status in ('pending', 'running')
group by j.job_type;
comment on view worker.job_stats is
  'Per type: jobs by status, success rate in percent, p50 and p95 of wait and duration in seconds, over the last 24 hours or the setting worker.stats_window';

create or replace view worker.type_status with (security_invoker = true) as
select
  coalesce(t.name, j.job_type) as job_type,
  t.name is not null as declared, coalesce(t.enabled, false) as enabled, coalesce(t.paused, false) as paused,
  coalesce(j.waiting, 0) as waiting, coalesce(j.scheduled, 0) as scheduled, coalesce(j.parked, 0) as parked,
  coalesce(j.running, 0) as running,
  j.oldest_due,
  (select count(*) from worker.process p where p.dead_at is null and p.stopped_at is null
    and p.lease_until > worker.now() and coalesce(t.name, j.job_type) = any (p.types)) as daemons
from worker.job_type t
full join (
  select q.job_type,
    count(*) filter (where q.queued and q.scheduled_at <= worker.now()) as waiting,
    count(*) filter (where q.queued and q.scheduled_at > worker.now()) as scheduled,
    count(*) filter (where q.parked) as parked,
    count(*) filter (where q.status = 'running') as running,
    worker.now() - min(q.scheduled_at) filter (where q.queued and q.scheduled_at <= worker.now()) as oldest_due
  from worker.job_queue q where q.status in ('pending', 'running') group by q.job_type) j on j.job_type = t.name;
comment on view worker.type_status is
  'Per type, undeclared ones included: declared, enabled, paused, rows waiting, scheduled, parked and running, age of the oldest due row, daemons alive that run it';
