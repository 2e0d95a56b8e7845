-- What can be read of syncs: always the job's own row, in the words of a sync. Applications see the syncs of the tenant
-- they act for, users their own (sync.sees); the view runs with its owner's rights and asks that for each row.

create or replace view sync.syncs with (security_barrier) as
select r.sync_id,
       r.tenant_id,
       r.user_id,
       r.provider,
       j.source::text as source,  -- casts, because only the queue's owner may build upon its types
       sync.status_word(j.status) as status,
       case when j.finished_at is not null then j.status
            when j.status = 'running' then 'running'
            when j.started_at is null then 'waiting'
            when j.attempt > 0 and j.errors is not null and j.progress ->> 'stage' is distinct from 'detecting'
                then 'retrying'
            else 'snoozed' end as state,
       case when j.finished_at is null then coalesce(j.progress ->> 'stage', 'waiting') end as phase,
       case when j.status = 'completed' then 100 else coalesce((j.progress ->> 'percent')::integer, 0) end as progress,
       coalesce((j.progress ->> 'page')::integer, 0) as page,
       coalesce((j.progress ->> 'orders')::integer, 0) as orders,
       j.attempt,
       j.max_attempts::integer as max_attempts,
       greatest(j.attempt - 1, 0) as retry_count,
       case when j.status = 'pending' and j.started_at is not null then j.scheduled_at end as next_retry_at,
       sync.error_of(sync.status_word(j.status), case
           when j.status = 'failed' then j.errors -> -1 ->> 'message'
           when j.status = 'pending' and j.progress ->> 'waits_for' is not null then j.progress ->> 'waits_for'
           when j.status = 'pending' and j.progress ->> 'stage' is distinct from 'detecting'
               then j.errors -> -1 ->> 'message' end, j.scheduled_at) as error,
       case when j.status = 'cancelled' then j.finish_reason else j.cancel_reason end as cancel_reason,
       j.cancel_requested_at,
       case when d.finished_at is not null then sync.status_word(d.status) when d.id is not null then 'running'
            end as detection,
       j.priority::integer as priority,
       j.correlation_id::text as correlation_id,
       j.created_at,
       j.started_at,
       j.finished_at,
       coalesce(j.finished_at, worker.now()) - j.started_at as duration
  from sync.sync_runs as r
  join worker.job_queue as j on j.id = r.sync_id
  left join worker.job_queue as d on d.id = r.detect_job
 where sync.sees(r.tenant_id, r.user_id);
comment on view sync.syncs is
    'Syncs in their own words, as many as the queue keeps; a user sees own ones only. status is one of five words, state says which of the queue''s it stands for.';

create or replace function sync.status(user_id text, sync_id bigint default null) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    found_sync sync.syncs;
begin
    select s.* into found_sync from sync.syncs as s
     where s.user_id = status.user_id and (status.sync_id is null or s.sync_id = status.sync_id)
     order by s.sync_id desc limit 1;
    if found_sync.sync_id is null and status.sync_id is not null then
        raise exception 'user "%" has no sync %', user_id, sync_id using errcode = 'SY004';
    elsif found_sync.sync_id is null then
        return jsonb_build_object('user_id', user_id, 'status', 'idle', 'active', false);
    end if;
    return to_jsonb(found_sync) || jsonb_build_object('active', found_sync.status = 'running');
end
$$;
comment on function sync.status(text, bigint) is
    'The newest sync of a user, or the one of this id (SY004 when that is none of the user''s), with `active`; status idle where there is none.';

create or replace function sync.active(user_id text) returns setof sync.syncs
language sql stable set search_path = pg_catalog, pg_temp
as $$ select s.* from sync.syncs as s where s.user_id = active.user_id and s.finished_at is null $$;
comment on function sync.active(text) is 'The sync of a user that waits, runs or is to be tried again; none, or one.';

create or replace function sync.history(
    user_id text, limit_rows integer default 20, offset_rows integer default 0, status text default null)
returns setof sync.syncs
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if history.status is not null and sync.status_word(history.status) is null then
        raise exception '"%" is no status of a sync', status using errcode = 'SY002';
    elsif limit_rows not between 1 and 100 or offset_rows < 0 then
        raise exception 'at most 100 syncs at a time, from the first on' using errcode = 'SY002';
    end if;
    return query
    select s.* from sync.syncs as s
     where s.user_id = history.user_id
       and (history.status is null or s.status = sync.status_word(history.status))
     order by s.sync_id desc
     limit limit_rows offset offset_rows;
end
$$;
comment on function sync.history(text, integer, integer, text) is
    'Syncs of a user, the newest first; of one status where it is named, in a new or an old spelling.';

create or replace function sync.statistics(user_id text default null)
returns table (total bigint, successful bigint, failed bigint, cancelled bigint, running bigint, success_rate numeric,
               average_seconds numeric, last_completed_at timestamptz, orders bigint, claims bigint, claimed numeric)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select count(*), count(*) filter (where s.status = 'completed'), count(*) filter (where s.status = 'failed'),
       count(*) filter (where s.status = 'cancelled'), count(*) filter (where s.status = 'running'),
       round(100.0 * count(*) filter (where s.status = 'completed')
             / nullif(count(*) filter (where s.status in ('completed', 'failed')), 0), 1),
       round(avg(extract(epoch from s.duration)) filter (where s.status = 'completed'), 3),
       max(s.finished_at) filter (where s.status = 'completed'),
       (select count(*) from sync.sync_orders as o where statistics.user_id is null or o.user_id = statistics.user_id),
       (select count(*) from sync.claims as c where statistics.user_id is null or c.user_id = statistics.user_id),
       (select coalesce(sum(c.amount), 0) from sync.claims as c
         where statistics.user_id is null or c.user_id = statistics.user_id)
  from sync.syncs as s
 where statistics.user_id is null or s.user_id = statistics.user_id
$$;
comment on function sync.statistics(text) is
    'Syncs of a user (null: of everybody whom the caller may see) by status, and what they stored and found, counted from the rows.';

create or replace function sync.results(user_id text, sync_id bigint) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    found_sync sync.syncs;
begin
    select s.* into found_sync from sync.syncs as s where s.user_id = results.user_id and s.sync_id = results.sync_id;
    if found_sync.sync_id is null then
        raise exception 'user "%" has no sync %', user_id, sync_id using errcode = 'SY004';
    end if;
    return jsonb_build_object('sync_id', found_sync.sync_id, 'status', found_sync.status,
                              'detection', found_sync.detection)
        || sync.count_rows(found_sync.sync_id);
end
$$;
comment on function sync.results(text, bigint) is
    'What a sync came to so far, counted from the rows it wrote: pages, orders, claims; and how its detection stands.';

create or replace function sync.health(span interval default '24 hours', out status text, out success_rate numeric,
    out ended bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select case when c.rate is null then 'idle' when c.rate >= 90 then 'healthy' when c.rate >= 70 then 'degraded'
            else 'unhealthy' end, c.rate, c.ended
  from (select round(100.0 * count(*) filter (where j.status = 'completed') / nullif(count(*), 0), 1) as rate,
               count(*) as ended
          from sync.sync_runs as r
          join worker.job_queue as j on j.id = r.sync_id
         where r.requested_at > worker.now() - health.span and j.status in ('completed', 'failed')) as c
$$;
comment on function sync.health(interval) is
    'Of the syncs that were asked for within a span, and ended, how many in a hundred were completed: healthy from 90, degraded from 70, else unhealthy; idle when none ended.';

create or replace function sync.queue_status() returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
    'types', (select jsonb_object_agg(t.name, jsonb_build_object(
                        'waiting', coalesce(d.waiting, 0), 'scheduled', coalesce(d.scheduled, 0),
                        'parked', coalesce(d.parked, 0), 'running', coalesce(d.running, 0),
                        'oldest_due', ceil(extract(epoch from d.oldest_due)), 'paused', t.paused, 'enabled', t.enabled,
                        'daemons', (select count(*) from worker.process as p
                                     where p.dead_at is null and p.stopped_at is null
                                       and p.lease_until > worker.now() and t.name = any (p.types))))
                from worker.job_type as t
                left join worker.queue_depth as d on d.job_type = t.name
               where t.name in ('sync', 'sync_detect')),
    'health', (select to_jsonb(h) from sync.health() as h))
$$;
comment on function sync.queue_status() is
    'The queue as it is: of syncs and detections how many are due, scheduled, parked and running, since when the oldest is due (seconds), whether they are paused, how many daemons run them; and sync.health().';
