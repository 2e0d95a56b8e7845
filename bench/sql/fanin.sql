-- How many jobs of a type completed, and seconds from the last end of one type to the last end of another.
create function bench.completed(type text) returns bigint language sql as $$
  select count(*) from worker.job_queue where job_type = type and status = 'completed'
$$;

create function bench.quiet() returns boolean language sql as $$
  select not exists (select from worker.job_queue where queued or parked)
    and not exists (select from worker.job_queue where status = 'running')
$$;

create function bench.lag(first text, second text) returns double precision language sql as $$
  select extract(epoch from max(finished_at) filter (where job_type = second)
    - max(finished_at) filter (where job_type = first))::float8 from worker.job_queue
$$;

create function bench.span_of(type text) returns double precision language sql as $$
  select extract(epoch from max(finished_at) - min(started_at))::float8 from worker.job_queue where job_type = type
$$;
