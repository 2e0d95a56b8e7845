-- What the measurements ask of the queue itself.
create schema bench;

create function bench.fill(jobs bigint, type text default 'noop') returns void language sql as $$
  insert into worker.job_queue (job_type, payload)
  select type, jsonb_build_object('n', n, 'pad', repeat('x', 80)) from generate_series(1, jobs) n
$$;

create function bench.seconds(type text default 'noop') returns double precision language sql as $$
  select extract(epoch from max(finished_at) - min(started_at))::float8 from worker.job_queue where job_type = type
$$;

-- An application's own table, whose trigger enqueues.
create table bench.app_row (
  id bigint generated always as identity primary key,
  payload jsonb not null
);

create function bench.enqueue_row() returns trigger language plpgsql as $$
begin
  insert into worker.job_queue (job_type, payload) values ('noop', jsonb_build_object('id', new.id));
  return null;
end $$;

create trigger enqueue_row after insert on bench.app_row for each row execute function bench.enqueue_row();

-- Milliseconds from insert to start, and from insert to end, of the jobs of one type.
create function bench.latencies(type text) returns table (started double precision, finished double precision)
language sql as $$
  select date_part('epoch', started_at - (payload ->> 'at')::timestamptz) * 1000,
         date_part('epoch', finished_at - (payload ->> 'at')::timestamptz) * 1000
  from worker.job_queue where job_type = type and finished_at is not null order by id
$$;

create function bench.enqueue_one(type text default 'noop') returns void language sql as $$
  insert into worker.job_queue (job_type, payload) values (type, jsonb_build_object('at', clock_timestamp()))
$$;

-- The queue's table with all its columns, checks and indexes, but no trigger: what is left of a row's cost then.
create table bench.untriggered (like worker.job_queue including all);
alter table bench.untriggered alter column priority set default 100, alter column max_attempts set default 5,
  alter column scheduled_at set default statement_timestamp(), alter column created_at set default statement_timestamp(),
  alter column correlation_id set default gen_random_uuid()::text, alter column unique_while set default 'waiting';
