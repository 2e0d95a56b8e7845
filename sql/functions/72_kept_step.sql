-- One SQL function as a step of a job whose handler is Python: looked for before it runs, its answer kept with its mark.

create or replace function worker.open_step(job bigint, claim bigint, step text, out done boolean, out result text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  j record;
begin
  select q.attempt, q.claim, q.status, q.cancel_requested_at into j from worker.job_queue q where q.id = job;
  perform worker.check_claim(job, j.status, j.claim, open_step.claim, j.cancel_requested_at);
  insert into worker.job_step as s (job_id, name, status, attempt, claim)
  values (job, step, 'waiting', j.attempt, open_step.claim)
  on conflict on constraint job_step_pkey do update set status = 'waiting', attempt = excluded.attempt,
    claim = excluded.claim, started_at = null, finished_at = null
  where s.status <> 'completed';
  select s.status = 'completed', s.result::text into done, result
  from worker.job_step s where s.job_id = job and s.name = step;
end
$$;
comment on function worker.open_step(bigint, bigint, text) is
  'Opens one step on the timeline; answers with whether it is done, and with what its function answered then';

revoke all on function worker.open_step(bigint, bigint, text) from public;
grant execute on function worker.open_step(bigint, bigint, text) to worker_run;
