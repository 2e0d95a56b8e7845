-- What the command line lists. With the caller's own rights: policies decide which rows there are.

create or replace function worker.list_jobs(job_type text default null, status text default null, tenant_id text default null,
  before_id bigint default null, n integer default 50) returns setof worker.jobs
language sql stable
begin atomic
  -- The ids come from the bare table, so that the view's sums are made for n rows only. Failed and cancelled rows are
  -- found by the index of troubles.
  select j.* from worker.jobs j
  where j.id in (
    select q.id from worker.job_queue q
    where (list_jobs.job_type is null or q.job_type = list_jobs.job_type)
      and (list_jobs.tenant_id is null or q.tenant_id = list_jobs.tenant_id)
      and (list_jobs.status is null or q.status = list_jobs.status)
      and (list_jobs.status is null or list_jobs.status not in ('failed', 'cancelled') or q.trouble)
      and (list_jobs.before_id is null or q.id < list_jobs.before_id)
    order by q.id desc limit list_jobs.n)
  order by j.id desc;
end;
comment on function worker.list_jobs(text, text, text, bigint, integer) is
  'The newest n jobs of a type, status and tenant (null = any), newest first; before_id continues a list where it ended';

create or replace function worker.show_job(id bigint) returns jsonb
language sql stable
begin atomic
  select to_jsonb(j) || jsonb_build_object(
    'wait', extract(epoch from j.wait), 'duration', extract(epoch from j.duration),
    'steps', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'name', s.name, 'status', s.status, 'attempt', s.attempt, 'tags', s.tags, 'error', s.error, 'result', s.result,
        'started_at', s.started_at, 'finished_at', s.finished_at,
        'began', extract(epoch from s.started_at - first.at),
        'seconds', extract(epoch from coalesce(s.finished_at, clock_timestamp()) - s.started_at))
        order by s.started_at nulls last, s.name), '[]')
      from worker.job_step s,
        (select min(f.started_at) as at from worker.job_step f where f.job_id = j.id) first
      where s.job_id = j.id),
    'events', (
      select coalesce(jsonb_agg(jsonb_build_object('at', e.at, 'event', e.event, 'actor', e.actor, 'detail', e.detail)
        order by e.id), '[]')
      from worker.job_event e where e.job_id = j.id))
  from worker.jobs j where j.id = show_job.id;
end;
comment on function worker.show_job(bigint) is
  'One job as the view jobs has it, wait and duration in seconds, with its steps (began: seconds after the first step) and its events; null when there is none';

create or replace function worker.status() returns jsonb
language sql stable
begin atomic
  select jsonb_build_object(
    'types', (
      select coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object(
        'oldest_due', extract(epoch from t.oldest_due),
        'completed', coalesce(s.completed, 0), 'skipped', coalesce(s.skipped, 0), 'failed', coalesce(s.failed, 0),
        'cancelled', coalesce(s.cancelled, 0), 'success_rate', s.success_rate,
        'duration_p50', s.duration_p50, 'duration_p95', s.duration_p95) order by t.job_type), '[]')
      from worker.type_status t left join worker.job_stats s on s.job_type = t.job_type),
    'daemons', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'id', p.id, 'host', p.host, 'pid', p.pid, 'version', p.version, 'types', p.types, 'slots', p.slots,
        'state', case when p.dead_at is not null then 'dead' when p.stopped_at is not null then 'stopped'
                      when p.lease_until < worker.now() then 'silent' else 'alive' end,
        'running', (select count(*) from worker.job_queue q where q.claimed_by = p.id and q.status = 'running'),
        'started_at', p.started_at, 'beat', extract(epoch from worker.now() - p.beat_at)) order by p.id), '[]')
      from worker.process p
      where p.stopped_at is null and (p.dead_at is null or p.dead_at > worker.now() - interval '1 hour')));
end;
comment on function worker.status() is
  'Every type with its counts (finished ones of the window of worker.job_stats) and every daemon that is alive, silent, or died within the hour';

create or replace function worker.remains(me bigint, types text[], out ran jsonb, out left_over jsonb,
  out next_return double precision)
language sql stable
begin atomic
  with open as (
    select case
        when q.status = 'running' then 'running'
        when t.name is null then 'undeclared'
        when not q.job_type = any (types) then 'elsewhere'
        when t.paused then 'paused'
        when not t.enabled then 'disabled'
        when q.parked then 'parked'
        when q.scheduled_at <= worker.now() and not q.job_type = any ((select worker.open_types(types))::text[]) then 'limited'
        when q.scheduled_at <= worker.now() then 'claimable'
        when q.phase = 'rate' then 'rated'
        when q.started_at is null then 'scheduled'
        when q.snoozes > 0 and q.attempt = 0 then 'snoozed'
        else 'retry' end as reason,
      count(*) as jobs, min(q.scheduled_at) as due
    from worker.job_queue q left join worker.job_type t on t.name = q.job_type
    where q.queued or q.parked or q.status = 'running'
    group by 1
  )
  select
    (select coalesce(jsonb_object_agg(d.status, d.jobs), '{}') from (
      select j.status, count(*) as jobs from worker.job_queue j
      where j.claimed_by = me and j.finished_at is not null group by j.status) d),
    (select coalesce(jsonb_object_agg(o.reason, o.jobs), '{}') from open o),
    (select extract(epoch from min(o.due) - worker.now())::double precision from open o
     where o.reason in ('retry', 'snoozed', 'rated'));
end;
comment on function worker.remains(bigint, text[]) is
  'For a drain: the jobs that process me brought to their end, by status; those not at their end, by the reason why a daemon of these types does not run them now; seconds until the next retry, snooze or start at a rate is due';

-- Rights. What people read, and what the daemon's drain reads.
revoke all on function worker.list_jobs(text, text, text, bigint, integer), worker.show_job(bigint), worker.status(),
  worker.remains(bigint, text[]) from public;
grant execute on function worker.list_jobs(text, text, text, bigint, integer)
  to worker_enqueue, worker_tenant, worker_read;
grant execute on function worker.show_job(bigint), worker.status(), worker.remains(bigint, text[]) to worker_read;
