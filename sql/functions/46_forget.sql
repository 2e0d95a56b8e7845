-- Forgetting the finished jobs of one type before the daemon's prune would.

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

revoke all on function worker.forget(text, interval, integer) from public;
grant execute on function worker.forget(text, interval, integer) to worker_operate;
