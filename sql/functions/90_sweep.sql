-- What heals by itself, a second late at most.

create or replace function worker.sweep() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '250ms'
as $$
begin
  return worker.sweep_expired() + worker.sweep_parked() + worker.sweep_kept();
end
$$;
comment on function worker.sweep() is
  'Ends expired rows, queues parked heads whose key is free, and turns notes that outlived the start of their job into jobs; answers with how many rows it touched';

create or replace function worker.sweep_expired() returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  ended integer;
begin
  update worker.job_queue j set status = 'skipped', finish_reason = 'expired', queued = false, held_key = null,
    finished_at = worker.now()
  where j.ctid = any (array(
    select q.ctid from worker.job_queue q where q.queued and q.expires_at <= worker.now()
    order by q.expires_at limit 1000 for no key update skip locked));
  get diagnostics ended = row_count;
  return ended;
end
$$;
comment on function worker.sweep_expired() is 'Ends up to 1,000 expired pending rows: skipped / expired';

create or replace function worker.sweep_parked() returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  stranded text[];
begin
  with recursive line (key) as (
    (select q.concurrency_key from worker.job_queue q where q.parked order by q.concurrency_key limit 1)
    union all
    select (select q.concurrency_key from worker.job_queue q where q.parked and q.concurrency_key > l.key
            order by q.concurrency_key limit 1)
    from line l where l.key is not null
  )
  select array_agg(l.key) into stranded from line l
  where l.key is not null
    and not exists (select from worker.key_slot s where s.key = l.key);
  if stranded is null then
    return 0;
  end if;
  return worker.unpark(stranded);
end
$$;
comment on function worker.sweep_parked() is
  'Queues the head of every line of parked rows whose key nobody holds: its head was cancelled, deleted, expired or postponed';

create or replace function worker.sweep_kept() returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  renewed integer;
begin
  with orphan as (
    delete from worker.kept k using worker.job_queue j
    where j.id = k.job_id and (j.started_at is not null or j.finished_at is not null)
      and k.id = any (array(select o.id from worker.kept o order by o.id limit 1000 for update skip locked))
    returning j.id
  )
  insert into worker.job_queue (job_type, payload, priority, unique_key, concurrency_key, tenant_id, max_attempts, source)
  select j.job_type, j.payload, j.priority, j.unique_key, j.concurrency_key, j.tenant_id, j.max_attempts, j.source
  from worker.job_queue j where j.id in (select o.id from orphan o)
  order by j.job_type, j.tenant_id, j.unique_key
  on conflict do nothing;
  get diagnostics renewed = row_count;
  return renewed;
end
$$;
comment on function worker.sweep_kept() is
  'An enqueue answered with a waiting job that started before the enqueuer committed did not get what it was promised: it becomes a job now';
