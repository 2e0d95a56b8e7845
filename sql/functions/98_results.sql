-- What jobs said when they completed, for gauges.

create or replace function worker.last_results(types text[]) returns table (job_type text, result text, age double precision)
-- By the index of types: where statistics say that a type is most of the table, another way looks cheaper. Two bounds in
-- place of "=", or going backwards over the primary key would be in order, too.
language sql stable set enable_seqscan = off set enable_sort = off set jit = off
begin atomic
  select t.name, done.result::text, date_part('epoch', worker.now() - done.finished_at)
  from unnest(types) t (name)
  cross join lateral (
    select newest.result, newest.finished_at from (
      select j.result, j.status, j.finished_at from worker.job_queue j
      where j.job_type >= t.name and j.job_type <= t.name
      order by j.job_type desc, j.id desc limit 500) newest
    where newest.status = 'completed'
    order by newest.finished_at desc limit 1) done;
end;
comment on function worker.last_results(text[]) is
  'The result of the job of each type that completed last, and how many seconds ago; looks at the newest 500 jobs of a type only';

revoke all on function worker.last_results(text[]) from public;
grant execute on function worker.last_results(text[]) to worker_read;
