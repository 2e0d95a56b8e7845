-- The least that keeps every row: what the queue is measured against. No fences, keys, steps, types or rights.
create table raw_job (
  id bigint generated always as identity primary key,
  payload jsonb not null,
  status text not null default 'pending',
  priority smallint not null default 100,
  scheduled_at timestamptz not null default now(),
  attempt integer not null default 0,
  started_at timestamptz,
  finished_at timestamptz
);
create index raw_job_due on raw_job (priority, scheduled_at, id) where status = 'pending';

create function raw_fill(jobs bigint) returns void language sql as $$
  insert into raw_job (payload) select jsonb_build_object('n', n, 'pad', repeat('x', 80)) from generate_series(1, jobs) n
$$;

create function raw_claim(batch integer) returns table (id bigint, payload text) language sql as $$
  with picked as materialized (
    select p.id from raw_job p where p.status = 'pending' and p.scheduled_at <= now()
    order by p.priority, p.scheduled_at, p.id limit batch for update skip locked)
  update raw_job j set status = 'running', started_at = now(), attempt = j.attempt + 1
  from picked where j.id = picked.id returning j.id, j.payload::text
$$;

create function raw_complete(ids bigint[]) returns void language sql as $$
  update raw_job j set status = 'completed', finished_at = now() where j.id = any (ids) and j.status = 'running'
$$;
