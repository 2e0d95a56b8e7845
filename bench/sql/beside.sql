-- Rows that only lie there, and the questions asked while jobs are drained beside them.
--
-- They are written as the queue would have left them, without its triggers: a million in seconds.
create function bench.lay(rows bigint, type text, state text, due timestamptz) returns void
language sql set session_replication_role = replica as $$
  insert into worker.job_queue (job_type, payload, status, queued, priority, scheduled_at, attempt, max_attempts,
    unique_while, correlation_id, claimed_by, batch, claim, created_at, started_at, finished_at)
  select type, jsonb_build_object('n', n, 'pad', repeat('x', 80)), state, state = 'pending', 100,
    due + n * interval '1 microsecond', case state when 'pending' then 0 else 1 end, 5, 'waiting', gen_random_uuid()::text,
    case state when 'completed' then 0 end, case state when 'completed' then 0 end, case state when 'completed' then n end,
    now(), case state when 'completed' then due end, case state when 'completed' then due end
  from generate_series(1, rows) n
$$;

create function bench.lay_finished(rows bigint) returns void language sql as $$
  select bench.lay(rows, 'noop', 'completed', now() - interval '1 hour')
$$;

-- Of the very type that is drained, and of its priority: they share its line of the index.
create function bench.lay_future(rows bigint) returns void language sql as $$
  select bench.lay(rows, 'noop', 'pending', now() + interval '1 day')
$$;

-- Due since an hour, so before everything that is drained.
create function bench.lay_paused(rows bigint) returns void language sql as $$
  select bench.lay(rows, 'halted', 'pending', now() - interval '1 hour')
$$;

create function bench.newest() returns bigint language sql as $$
  select coalesce((select id from worker.job_queue order by id desc limit 1), 0)
$$;

-- Asked often, so the cheap question comes first.
create function bench.is_done(since bigint) returns boolean language sql as $$
  select case when (select finished_at is null from worker.job_queue order by id desc limit 1) then false
    else not exists (select from worker.job_queue where id > since and finished_at is null) end
$$;

create function bench.span(since bigint) returns double precision language sql as $$
  select extract(epoch from max(finished_at) - min(started_at))::float8 from worker.job_queue where id > since
$$;

create function bench.asleep() returns bigint language sql as $$
  select count(*) from worker.asleep
$$;

-- Of the jobs started until the last one of this type was: the share of this type.
create function bench.share(type text) returns double precision language sql as $$
  select count(*) filter (where job_type = type)::float8 / count(*) from worker.job_queue
  where started_at <= (select max(started_at) from worker.job_queue where job_type = type)
$$;

-- Statements of this database so far whose text has these words in it; plpgsql, as the extension comes later.
create function bench.calls(words text) returns double precision language plpgsql as $$
begin
  return (select coalesce(sum(calls), 0) from pg_stat_statements s join pg_database d on d.oid = s.dbid
    where datname = current_database() and strpos(query, words) > 0);
end $$;
