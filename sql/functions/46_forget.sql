-- Forgetting finished jobs: the daemon's prune, and those of one type before it would.

create or replace function worker.forget(job_type text, older_than interval, n integer default 10000) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  page bigint[];
begin
  page := array(
    select j.id from worker.job_queue j
    where j.job_type = forget.job_type and j.finished_at < worker.now() - older_than
    order by j.id limit n);
  with deleted as (
    delete from worker.job_queue j where j.id = any (page) and j.finished_at is not null returning j.id
  )
  select coalesce(array_agg(d.id), '{}') into page from deleted d;
  delete from worker.job_event e where e.job_id = any (page);
  return cardinality(page);
end
$$;
comment on function worker.forget(text, interval, integer) is
  'Deletes up to n jobs of a type that ended longer ago than that, with their steps and events; answers with how many went. Never touches unfinished jobs';

create or replace function worker.prune(keep jsonb, after bigint default 0, n integer default 5000,
  out last bigint, out gone integer, out more boolean)
language plpgsql security definer
-- A page is a small part of the table, also where nobody has counted it yet.
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set lock_timeout = '2s'
as $$
declare
  instant timestamptz := worker.now();
  horizon timestamptz;  -- nothing created after it can be old enough
  page bigint[];
begin
  gone := 0;
  more := false;
  -- One at a time is enough; whoever comes second leaves it to the first.
  if not worker.alone('worker.prune') then
    return;
  end if;
  select instant - make_interval(secs => min(k.value::double precision)) into horizon from jsonb_each_text(keep) k;

  select max(q.id), coalesce(array_agg(q.id) filter (where q.finished_at
           < instant - make_interval(secs => (keep ->> q.status)::double precision)), '{}'),
         coalesce(count(*) = n and max(q.created_at) < horizon, false)
  into last, page, more
  from (select j.id, j.status, j.finished_at, j.created_at from worker.job_queue j
        where j.id > after order by j.id limit n) q;

  with deleted as (
    delete from worker.job_queue j where j.id = any (page) and j.finished_at is not null returning j.id
  )
  select array_agg(d.id), count(*) into page, gone from deleted d;
  delete from worker.job_event e where e.job_id = any (page);
  if after = 0 then
    perform worker.prune_processes(instant - interval '1 day');
    perform worker.forget_rates();
    perform worker.forget_trends(instant - interval '8 days');
  end if;
end
$$;
comment on function worker.prune(jsonb, bigint, integer) is
  'Deletes the finished jobs among the n rows after an id that are older than keep ({"completed": seconds, …}; a status that is not named is kept for ever), with their steps and events. Answers with the last id seen, how many went, and whether old ones may follow. Never touches unfinished jobs';

create or replace function worker.prune_processes(before timestamptz) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  delete from worker.process p
  where (p.stopped_at < before or (p.dead_at < before and p.emptied_at < before))
    and not exists (select from worker.job_queue j where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running')
$$;
comment on function worker.prune_processes(timestamptz) is
  'Forgets processes that stopped before an instant, or died and were emptied by then; part of worker.prune';

-- Rights.
revoke all on function worker.forget(text, interval, integer), worker.prune(jsonb, bigint, integer), worker.prune_processes(timestamptz) from public;
grant execute on function worker.forget(text, interval, integer) to worker_operate;
grant execute on function worker.prune(jsonb, bigint, integer) to worker_run;
