-- Jobs by the clock. A daemon works out when a run comes; here it is fired, once, by whoever is first.

create or replace function worker.declare_schedules(declarations jsonb, types text[]) returns table (name text, change text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with given as (
    select d.* from jsonb_to_recordset(declarations) as d (name text, cron text, zone text, job text, payload jsonb,
      for_each text, priority smallint, source text, missed text, max_catch_up integer, enabled boolean, digest text)
  ), written as (
    insert into worker.schedule as s (name, cron, zone, job_type, payload, for_each, priority, source, missed,
      max_catch_up, enabled, digest)
    select g.name, g.cron, coalesce(g.zone, 'UTC'), g.job, g.payload, g.for_each, g.priority, coalesce(g.source, g.name),
      coalesce(g.missed, 'last'), coalesce(g.max_catch_up, 10), coalesce(g.enabled, true), g.digest
    from given g
    -- Not even touched when nothing changed: a start must not wait for whoever fires it just now.
    where not exists (select from worker.schedule s where s.name = g.name and s.digest = g.digest and s.enabled = g.enabled)
    order by g.name
    on conflict on constraint schedule_pkey do update set
      cron = excluded.cron, zone = excluded.zone, job_type = excluded.job_type, payload = excluded.payload,
      for_each = excluded.for_each, priority = excluded.priority, source = excluded.source, missed = excluded.missed,
      max_catch_up = excluded.max_catch_up, enabled = excluded.enabled, digest = excluded.digest,
      declared_at = clock_timestamp(), error = null, failures = 0, retry_at = null,
      -- Other times are worked out from now on, and who was switched off has missed nothing.
      next_at = case when excluded.enabled and (s.cron, s.zone) = (excluded.cron, excluded.zone) then s.next_at end
    where s.digest is distinct from excluded.digest or s.enabled is distinct from excluded.enabled
    returning s.name, s.xmax = '0'::xid as fresh
  ), gone as (
    -- Another configuration's schedules are not ours to end, nor have they missed nothing when its daemons are down.
    update worker.schedule s set enabled = false, asked_at = null,
      next_at = case when s.job_type = any (types) then null else s.next_at end
    where s.enabled and not exists (select from given g where g.name = s.name)
      and (s.job_type = any (types) or not exists (
        select from worker.process p where s.job_type = any (p.types)
          and p.dead_at is null and p.stopped_at is null and p.lease_until > worker.now()))
    returning s.name
  )
  select w.name, case when w.fresh then 'declared' else 'changed' end from written w
  union all select g.name, 'disabled' from gone g
  order by 1;
end
$$;
comment on function worker.declare_schedules(jsonb, text[]) is
  'Declares schedules (an array of objects as worker.toml gives them) of a configuration with these job types; answers with those that are new, changed, or disabled because the configuration has their job but not them any more, or no living daemon has. Never writes paused; the last declaration wins';

create or replace function worker.ready_at(s worker.schedule) returns timestamptz
language sql immutable
begin atomic
  select case when not s.enabled then null when s.asked_at is not null then s.asked_at
    when not s.paused then coalesce(greatest(s.next_at, s.retry_at), 'epoch') end;
end;
comment on function worker.ready_at(worker.schedule) is
  'When a daemon has something to do for a schedule: its next run, a run that an operator asked for, or the next try; long ago where the next run is to be worked out. Null: never';

create or replace function worker.due_schedules(names text[]) returns table (name text, cron text, zone text, for_each text,
  missed text, max_catch_up integer, next_at timestamptz, asked_at timestamptz, paused boolean, failures integer, at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select s.name, s.cron, s.zone, s.for_each, s.missed, s.max_catch_up, s.next_at, s.asked_at, s.paused, s.failures, clock.at
  from worker.schedule s, (select worker.now() as at) clock
  where s.name = any (names) and worker.ready_at(s) <= clock.at
  order by worker.ready_at(s), s.name
$$;
comment on function worker.due_schedules(text[]) is 'Those of the named schedules that a daemon has something to do for, and the instant that it is';

create or replace function worker.next_schedule(names text[]) returns double precision
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
as $$
begin
  return (select date_part('epoch', min(worker.ready_at(s)) - worker.now()) from worker.schedule s where s.name = any (names));
exception when lock_not_available then
  return null;  -- a migration holds the table: asked again at the next beat, which it must not cost
end
$$;
comment on function worker.next_schedule(text[]) is
  'In how many seconds a daemon has something to do for one of the named schedules; below zero when that is overdue';

create or replace function worker.beat_and_look(me bigint, open_batch bigint, types text[], schedules text[])
returns table (alive boolean, stops bigint[], strays boolean, orphans boolean, due double precision, missing bigint[],
  lapsed bigint[], next_schedule double precision)
language sql volatile
begin atomic
  select b.*, worker.next_schedule(schedules) from worker.beat_and_look(me, open_batch, types) b;
end;
comment on function worker.beat_and_look(bigint, bigint, text[], text[]) is
  'The beat of a process that declares schedules: also says in how many seconds there is something to do for one of them';

create or replace function worker.take_schedule(name text, expected timestamptz, asked timestamptz) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  rows_of text;
begin
  select coalesce((select string_agg(quote_ident(part), '.') from unnest(parse_ident(s.for_each)) part), '') into rows_of
  from worker.schedule s
  where s.name = take_schedule.name and s.next_at is not distinct from expected and s.enabled
    and (s.asked_at = asked or (asked is null and not s.paused));
  -- Who comes second passes by, and need not call for_each as well. Not a lock on the row: for_each may take its time, and
  -- whoever declares or pauses the schedule would have to wait for it.
  if rows_of is not null and worker.alone('worker.schedule ' || take_schedule.name) then
    return rows_of;
  end if;
  return null;
end
$$;
comment on function worker.take_schedule(text, timestamptz, timestamptz) is
  'Takes a schedule that is still to be fired as its caller thinks, until the end of the transaction; answers with the function whose rows it is for, or an empty text. Null: somebody else has it, or had';

create or replace function worker.fire(name text, expected timestamptz, runs timestamptz[], next_at timestamptz,
  asked timestamptz default null) returns integer
language plpgsql
as $$
declare
  rows_of text := worker.take_schedule(fire.name, expected, asked);
  payloads jsonb[];
begin
  if rows_of is null then
    return null;
  end if;
  if rows_of <> '' and pg_catalog.cardinality(runs) > 0 then
    execute pg_catalog.format('select coalesce(pg_catalog.array_agg(pg_catalog.to_jsonb(r)), ''{}'') from (select * from %s()) r', rows_of)
    into payloads;
  end if;
  return worker.fire_for(fire.name, expected, runs, fire.next_at, asked, payloads);
end
$$;
comment on function worker.fire(text, timestamptz, timestamptz[], timestamptz, timestamptz) is
  'Fires a schedule whose next run is still the expected one: its jobs for these runs, and the next run, in one transaction; or the run that an operator asked for. Calls for_each with the rights of its caller. Answers with how many jobs were added, null when somebody else was first';

create or replace function worker.fire_for(name text, expected timestamptz, runs timestamptz[], next_at timestamptz,
  asked timestamptz, payloads jsonb[]) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  schedule worker.schedule;
  fired boolean := cardinality(runs) > 0;
  added integer;
begin
  update worker.schedule s set next_at = fire_for.next_at,
    asked_at = case when asked is null then s.asked_at end,
    retry_at = case when asked is not null then s.retry_at end,
    failures = case when fired then 0 else s.failures end,
    error = case when not fired then s.error end
  where s.name = fire_for.name and s.next_at is not distinct from expected and s.enabled
    and (s.asked_at = asked or (asked is null and not s.paused))
  returning s.* into schedule;
  if schedule.name is null then
    return null;
  end if;
  added := worker.add_runs(schedule, runs, case when schedule.for_each is null then array[coalesce(schedule.payload, '{}')] else payloads end);
  return added;
end
$$;
comment on function worker.fire_for(text, timestamptz, timestamptz[], timestamptz, timestamptz, jsonb[]) is
  'Second half of worker.fire: compares, sets, and inserts for the rows that for_each gave';

create or replace function worker.add_runs(schedule worker.schedule, runs timestamptz[], payloads jsonb[]) returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  instant timestamptz := worker.now();
  added integer := 0;
  run timestamptz;
  given jsonb;
begin
  if cardinality(runs) = 0 then
    return 0;
  end if;
  if exists (select from worker.job_type t where t.name = schedule.job_type and t.unique_key is not null) then
    for run, given in  -- one by one, in the order of their keys, as worker.enqueue_many does
      select r.run, p.payload from unnest(runs) r (run) cross join unnest(payloads) p (payload)
      order by worker.unique_key_of(schedule.job_type, p.payload), r.run
    loop
      perform worker.enqueue(schedule.job_type, given, scheduled_at => run, priority => schedule.priority::integer,
        on_conflict => 'keep', source => schedule.source);
      added := added + (coalesce(current_setting('worker.holder', true), '') = '')::integer;
    end loop;
  else
    insert into worker.job_queue (job_type, payload, scheduled_at, priority, source)
    select schedule.job_type, p.payload, r.run, schedule.priority, schedule.source
    from unnest(runs) r (run) cross join unnest(payloads) with ordinality p (payload, n)
    order by r.run, p.n;
    get diagnostics added = row_count;
  end if;
  update worker.schedule s set last_at = runs[cardinality(runs)], fired_at = instant, last_jobs = added,
    lateness = date_part('epoch', instant - runs[cardinality(runs)])
  where s.name = schedule.name;
  return added;
end
$$;
comment on function worker.add_runs(worker.schedule, timestamptz[], jsonb[]) is
  'Inserts the jobs of these runs, due when their run was, and notes them on the schedule; answers with how many were added, which those kept by a unique key are not';

create or replace function worker.schedule_failed(name text, expected timestamptz, asked timestamptz, message text,
  delay double precision) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  update worker.schedule s set error = left(message, 1000),
    asked_at = case when asked is null then s.asked_at end,
    failures = s.failures + (asked is null)::integer,
    retry_at = case when asked is null then worker.now() + make_interval(secs => delay) else s.retry_at end
  where s.name = schedule_failed.name and s.next_at is not distinct from expected and s.enabled
    and (asked is null or s.asked_at = asked);
  return found;
end
$$;
comment on function worker.schedule_failed(text, timestamptz, timestamptz, text, double precision) is
  'Notes why a schedule was not fired, and in how many seconds it is tried again; a run that an operator asked for is given up';

grant select on worker.schedule to worker_read;
grant execute on function
  worker.declare_schedules(jsonb, text[]), worker.due_schedules(text[]), worker.next_schedule(text[]),
  worker.beat_and_look(bigint, bigint, text[], text[]), worker.take_schedule(text, timestamptz, timestamptz),
  worker.fire(text, timestamptz, timestamptz[], timestamptz, timestamptz),
  worker.fire_for(text, timestamptz, timestamptz[], timestamptz, timestamptz, jsonb[]),
  worker.schedule_failed(text, timestamptz, timestamptz, text, double precision)
to worker_run;
