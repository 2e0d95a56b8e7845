-- What the worker learns the order of steps from is the marks of the last 20 jobs. Marks that never happened make it
-- take another order; without them it is back at what it learned.
create table bench.pretended (job_id bigint not null);

create function bench.forget() returns void language sql as $$
  delete from worker.job_queue where id in (select job_id from bench.pretended);
  delete from bench.pretended;
$$;

create function bench.pretend(type text, names text[], seconds double precision[]) returns void language sql as $$
  with job as (
    insert into worker.job_queue (job_type, status, queued, finished_at)
    select type, 'completed', false, now() from generate_series(1, 20)
    returning id
  ), noted as (
    insert into bench.pretended select id from job
  )
  insert into worker.job_step (job_id, name, status, claim, started_at, finished_at)
  select job.id, step.name, 'completed', 0, now() - make_interval(secs => step.seconds), now()
  from job cross join unnest(names, seconds) as step (name, seconds)
$$;

create function bench.took(job bigint) returns double precision language sql as $$
  select date_part('epoch', finished_at - started_at) from worker.job_queue where id = job and status = 'completed'
$$;

create function bench.nothing() returns void language sql as '';
