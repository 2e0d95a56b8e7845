-- For operators: what a person does to a schedule; each leaves an event that names the caller.

create or replace function worker.named_schedule(name text) returns worker.schedule
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  schedule worker.schedule;
begin
  select * into schedule from worker.schedule s where s.name = named_schedule.name for no key update;
  if schedule.name is null then
    raise exception 'nobody declared the schedule %', coalesce('"' || named_schedule.name || '"', 'null')
      using errcode = 'WK022', hint = 'worker.schedule lists them; worker.toml declares them.';
  end if;
  return schedule;
end
$$;
comment on function worker.named_schedule(text) is 'The schedule of that name, locked; refuses undeclared names (WK022)';

create or replace function worker.run_schedule(name text) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  schedule worker.schedule := worker.named_schedule(name);
  added integer;
begin
  if not schedule.enabled then
    raise exception 'the schedule % is off', schedule.name
      using errcode = 'WK023', hint = 'It is not in worker.toml any more, or has enabled = false there.';
  end if;
  if schedule.for_each is null then
    added := worker.add_runs(schedule, array[worker.now()], array[coalesce(schedule.payload, '{}')]);
  else
    update worker.schedule s set asked_at = coalesce(s.asked_at, worker.now()) where s.name = schedule.name;
  end if;
  perform worker.note_deed(null, 'run', jsonb_build_object('schedule', schedule.name, 'jobs', added));
  return added;
end
$$;
comment on function worker.run_schedule(text) is
  'Fires a schedule now, also a paused one, without moving its next run; answers with how many jobs were added. Null: it has for_each, whose rows a daemon reads, with its own rights, at its next beat. Leaves an event; refuses what is not declared (WK022) or off (WK023)';

create or replace function worker.pause_schedule(name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  schedule worker.schedule := worker.named_schedule(name);
begin
  if schedule.paused then
    return false;
  end if;
  update worker.schedule s set paused = true where s.name = schedule.name;
  perform worker.note_deed(null, 'pause', jsonb_build_object('schedule', schedule.name));
  return true;
end
$$;
comment on function worker.pause_schedule(text) is 'A schedule fires no more until worker.resume_schedule; false when it was paused already (WK022: nobody declared it)';

create or replace function worker.resume_schedule(name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  schedule worker.schedule := worker.named_schedule(name);
begin
  if not schedule.paused then
    return false;
  end if;
  -- Runs while it was paused were not wanted, so none of them is made up for.
  update worker.schedule s set paused = false, next_at = null, retry_at = null, failures = 0 where s.name = schedule.name;
  perform worker.note_deed(null, 'resume', jsonb_build_object('schedule', schedule.name));
  return true;
end
$$;
comment on function worker.resume_schedule(text) is 'Ends the pause of a schedule, which goes on with its first run from now on; false when it was not paused (WK022: nobody declared it)';

create or replace function worker.check_for_each(function text, search_path text) returns text
language plpgsql
as $$
declare
  named oid[];
  proc record;
begin
  perform pg_catalog.set_config('search_path', check_for_each.search_path, true);
  named := worker.visible_functions(function);
  select p.oid, p.proretset into proc from pg_catalog.pg_proc p
  where p.oid = any (named) and p.prokind = 'f' and p.pronargs = p.pronargdefaults;
  return case
    when pg_catalog.cardinality(named) = 0 then pg_catalog.format('there is no function %s', function)
    when proc.oid is null then pg_catalog.format('%s cannot be called without arguments', function)
    when not proc.proretset then pg_catalog.format('%s is not set-returning', function)
    when not pg_catalog.has_function_privilege(proc.oid, 'execute') then pg_catalog.format('%s may not execute %s', current_user, function)
  end;
end
$$;
comment on function worker.check_for_each(text, text) is
  'What keeps the caller from using a function as for_each of a schedule, found by its name on a search_path; null: nothing';

create or replace view worker.schedules with (security_invoker = true) as
select s.name, case when not s.enabled then 'off' when s.paused then 'paused' when s.error is not null then 'failing' else 'on' end as state,
  s.cron, s.zone, s.job_type, s.for_each, s.priority, s.source, s.missed, s.max_catch_up, s.next_at, s.retry_at, s.last_at,
  s.fired_at, s.last_jobs, s.lateness, s.failures, s.error, s.asked_at, s.declared_at
from worker.schedule s;
comment on view worker.schedules is
  'Every schedule with its state: on, paused by an operator, off (in worker.toml, or no longer there), or failing: its last run came to nothing and is tried again';

grant select on worker.schedules to worker_read;
grant execute on function worker.run_schedule(text), worker.pause_schedule(text), worker.resume_schedule(text) to worker_operate;
grant execute on function worker.check_for_each(text, text) to worker_run;
