-- What befalls a new row of a type with turns, a rate or a backlog, which lets only so many be pending.

create or replace function worker.admit(kind text, backlog jsonb, limits jsonb, wanted integer, may_refuse boolean,
  out on_time integer, out later interval)
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off
as $$
declare
  bound integer := backlog ->> 'max';
  pending integer;
begin
  later := '0';
  on_time := wanted;
  if bound is null then
    return;
  end if;
  -- No more entries of an index are read than there may be; their order names the index. What runs at the same time is
  -- not seen: as many more may come through as there are producers.
  select count(*) into pending from (
    select from worker.job_queue q where q.queued and q.job_type = kind
    order by q.priority, q.scheduled_at limit bound) waiting;
  if pending < bound then
    pending := pending + (select count(*) from (
      select from worker.job_queue q where q.parked and q.job_type = kind
      order by q.priority limit bound - pending) parked);
  end if;
  on_time := least(wanted, bound - pending);
  if on_time = wanted then
    return;
  elsif may_refuse and backlog ->> 'then' = 'refuse' then
    raise exception '% jobs of % are pending, and its backlog.max is %', pending, kind, bound
      using errcode = 'WK011', detail = bound::text,
        hint = 'Enqueue it again later; or let new ones come later (backlog.then = "delay"), or raise backlog.max, in worker.toml.';
  end if;
  later := coalesce(make_interval(secs => (limits -> 'rate' ->> 'per')::double precision * bound / (limits -> 'rate' ->> 'limit')::integer),
    interval '1 minute');
end
$$;
comment on function worker.admit(text, jsonb, jsonb, integer, boolean) is
  'Of so many new jobs of a type, how many are due on time, and how much later the others are: by what its rate needs for backlog.max jobs, by a minute where it has none. Refuses them where backlog.then says so (WK011), but for jobs that follow others';

create or replace function worker.check_share(kind text, backlog jsonb, whose text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off
as $$
declare
  share integer := backlog ->> 'per_tenant';
  pending integer;
begin
  -- Where there is a share new ones are refused beyond the bound, so all that are pending are within twice of it, but for
  -- a flood of jobs that follow others. Their order names the index, as above.
  select count(*) into pending from (
    select q.tenant_id from worker.job_queue q where q.queued and q.job_type = kind
    order by q.priority, q.scheduled_at limit 2 * (backlog ->> 'max')::integer) waiting
  where waiting.tenant_id = whose;
  pending := pending + (select count(*) from (
    select q.tenant_id from worker.job_queue q where q.parked and q.job_type = kind
    order by q.priority limit 2 * (backlog ->> 'max')::integer) parked
  where parked.tenant_id = whose);
  if pending >= share then
    raise exception '% jobs of % are pending for tenant "%", and its backlog.per_tenant is %', pending, kind, whose, share
      using errcode = 'WK011', detail = share::text,
        hint = 'Enqueue it again later; or raise backlog.per_tenant in worker.toml.';
  end if;
end
$$;
comment on function worker.check_share(text, jsonb, text) is
  'Refuses a new job of a tenant that has backlog.per_tenant pending jobs of the type (WK011)';

create or replace function worker.gated(job worker.job_queue, instant timestamptz, follows boolean) returns worker.job_queue
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  declared worker.job_type;
begin
  select * into declared from worker.job_type t where t.name = job.job_type;
  job.fair := declared.fair;
  if declared.limits -> 'rate' ->> 'key' is not null and worker.fill(declared.limits -> 'rate' ->> 'key', job) is null then
    return worker.invalid(job, instant, format('the payload lacks a name that rate.key "%s" needs', declared.limits -> 'rate' ->> 'key'));
  end if;
  if declared.backlog ? 'per_tenant' and job.tenant_id is not null and not follows then
    perform worker.check_share(job.job_type, declared.backlog, job.tenant_id);
  end if;
  if declared.backlog is not null then
    job.scheduled_at := greatest(job.scheduled_at, instant + (worker.admit(job.job_type, declared.backlog, declared.limits, 1, not follows)).later);
  end if;
  return job;
end
$$;
comment on function worker.gated(worker.job_queue, timestamptz, boolean) is
  'The new row of a type with turns, a rate or a backlog: marked fair, later, or failed / invalid where its rate''s key cannot be filled';

-- Rights.
revoke all on function worker.admit(text, jsonb, jsonb, integer, boolean), worker.check_share(text, jsonb, text), worker.gated(worker.job_queue, timestamptz, boolean) from public;
