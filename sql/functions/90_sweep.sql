-- What heals by itself, a second late at most.

create or replace function worker.sweep() returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '250ms'
as $$
begin
  return worker.sweep_kept() + worker.sweep_expired() + worker.sweep_parked() + worker.sweep_slots();
end
$$;
comment on function worker.sweep() is
  'Turns notes that outlived the start of their job into jobs, ends expired rows, queues parked heads whose key is free and frees slots whose job does not run; answers with how many rows it touched';

create or replace function worker.sweep_expired() returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  ended bigint[];
begin
  with gone as (
    update worker.job_queue j set status = 'skipped', finish_reason = 'expired', queued = false, parked = false,
      held_key = null, finished_at = worker.now()
    where j.ctid = any (array(
      select q.ctid from worker.job_queue q where (q.queued or q.parked) and q.expires_at <= worker.now()
      order by q.expires_at limit 1000 for no key update skip locked))
    returning j.id
  )
  select array_agg(g.id) into ended from gone g;
  if ended is not null then
    perform worker.note_waiting('expired', ended);
  end if;
  return coalesce(cardinality(ended), 0);
end
$$;
comment on function worker.sweep_expired() is 'Ends up to 1,000 expired pending rows: skipped / expired';

create or replace function worker.sweep_parked() returns integer
-- Rows in order come from the index of parked ones: where statistics say that there are none, sorting all looks as cheap.
language plpgsql set search_path = pg_catalog, pg_temp set enable_sort = off set enable_seqscan = off
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
  where l.key is not null and not exists (
    select from worker.key_slot s join worker.job_queue j on j.id = s.job_id
    where s.key = l.key and j.status = 'running');
  if stranded is null then
    return 0;
  end if;
  delete from worker.key_slot s where s.key = any (stranded) and not exists (
    select from worker.job_queue j where j.id = s.job_id and j.status = 'running');
  return worker.unpark(stranded);
end
$$;
comment on function worker.sweep_parked() is
  'Queues the head of every line of parked rows whose key no running job holds: its head was cancelled, deleted, expired or postponed, or its holder deleted';

create or replace function worker.sweep_kept() returns integer
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '20ms'
as $$
declare
  notes bigint[] := array(select k.id from worker.kept k order by k.id limit 1000 for update skip locked);
  j worker.job_queue;
  added integer;
  renewed integer := 0;
begin
  -- A note that can be seen while its job still waits has served: the job starts after its producer's commit.
  delete from worker.kept k where k.id = any (notes) and not exists (
    select from worker.job_queue q where q.id = k.job_id and (q.started_at is not null or q.finished_at is not null));
  for j in
    select q.* from worker.job_queue q
    where q.id = any (array(select k.job_id from worker.kept k where k.id = any (notes)))
    order by q.job_type, q.tenant_id, q.unique_key, q.id
  loop
    begin
      -- Whose note it is may see and cancel the job; of several that share it, the first.
      perform set_config('worker.enqueuer', (  -- read by the insert's trigger
        select k.enqueued_by from worker.kept k where k.id = any (notes) and k.job_id = j.id order by k.id limit 1), true);
      insert into worker.job_queue (job_type, payload, priority, unique_key, on_conflict, concurrency_key, tenant_id,
        max_attempts, source)
      values (j.job_type, j.payload, j.priority, j.unique_key, 'keep', j.concurrency_key, j.tenant_id, j.max_attempts, j.source);
      get diagnostics added = row_count;
      renewed := renewed + added;
      delete from worker.kept k where k.id = any (notes) and k.job_id = j.id;
    exception when lock_not_available or unique_violation then
      null;  -- a producer's open transaction holds the key: the note stays for the next sweep
    end;
  end loop;
  perform set_config('worker.enqueuer', '', true);
  return renewed;
end
$$;
comment on function worker.sweep_kept() is
  'An enqueue answered with a waiting job that started before the enqueuer committed did not get what it was promised: it becomes a job now';
