-- Steps: a function's effect and its mark are one transaction.
--
-- worker.run_step runs with the daemon's own rights and without a SET clause, both of which would reach into the user's
-- function. What needs the tables sits in step_open and step_close.

create or replace function worker.lock_step(function text, lock_key text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  loop
    perform from worker.step_lock l where l.function = lock_step.function and l.key = lock_key for update;
    exit when found;
    insert into worker.step_lock (function, key) values (lock_step.function, lock_key) on conflict do nothing;
    exit when found;  -- our own uncommitted row is the lock
    -- Neither: whoever we waited for deleted its row, or inserted and went on. Without the loop we would hold nothing.
  end loop;
end
$$;
comment on function worker.lock_step(text, text) is 'Takes the lock of a step function and key until the end of the transaction, or 55P03 after lock_timeout';

create or replace function worker.step_open(job bigint, claim bigint, step text, function text, key text) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  j record;
  done boolean;
begin
  -- The lock comes before everything that is read: a step repeated after a lost connection waits here for its orphan
  -- and then finds the mark.
  begin
    perform worker.lock_step(function, coalesce(key, 'job:' || job));
  exception when lock_not_available then
    raise exception 'step % of job % still runs elsewhere', step, job using errcode = 'WK010', schema = 'worker';
  end;

  select q.claim, q.status, q.cancel_requested_at into j from worker.job_queue q where q.id = job;
  perform worker.check_claim(job, j.status, j.claim, claim, j.cancel_requested_at);
  done := exists (select from worker.job_step s where s.job_id = job and s.name = step and s.status = 'completed');
  if done then
    perform worker.leave_lock(job, function, key);
  end if;
  return not done;
end
$$;
comment on function worker.step_open(bigint, bigint, text, text, text) is
  'First half of worker.run_step: takes the step''s lock, checks the claim, looks for the mark; true = run it';

create or replace function worker.leave_lock(job bigint, function text, key text) returns void
language sql volatile
begin atomic
  delete from worker.step_lock l where leave_lock.key is null and l.function = leave_lock.function and l.key = 'job:' || job;
end;
comment on function worker.leave_lock(bigint, text, text) is
  'Removes the lock row of a step without a concurrency key, in the step''s own transaction, so that none is left behind';

create or replace function worker.check_claim(job bigint, status text, held bigint, claim bigint, cancelled timestamptz) returns void
language plpgsql immutable
as $$
begin
  -- The schema is the mark by which the daemon tells these from a WK… that a step's function raised.
  if status is distinct from 'running' or held is distinct from claim then
    raise exception 'claim % of job % is not current', claim, job using errcode = 'WK001', schema = 'worker';
  end if;
  if cancelled is not null then
    raise exception 'job % was asked to stop', job using errcode = 'WK009', schema = 'worker';
  end if;
end
$$;
comment on function worker.check_claim(bigint, text, bigint, bigint, timestamptz) is
  'Raises WK001 when the claim is not current, WK009 when a cancel was asked for';

create or replace function worker.step_close(job bigint, claim bigint, step text, function text, key text, began timestamptz,
  tags text[], result jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  j record;
begin
  -- For share and no weaker: a rescue or cancel that commits during the call must be seen here, and one that is about
  -- to commit must wait for our mark.
  select q.claim, q.status, q.cancel_requested_at, q.attempt into j from worker.job_queue q where q.id = job for share;
  perform worker.check_claim(job, j.status, j.claim, claim, j.cancel_requested_at);
  insert into worker.job_step as s (job_id, name, status, attempt, claim, started_at, finished_at, tags, result)
  values (job, step, 'completed', j.attempt, step_close.claim, began, clock_timestamp(), coalesce(step_close.tags, '{}'), step_close.result)
  on conflict on constraint job_step_pkey do update set status = 'completed', attempt = excluded.attempt,
    claim = excluded.claim, started_at = excluded.started_at, finished_at = excluded.finished_at, error = null,
    tags = excluded.tags, announced = false, result = excluded.result;
  perform worker.leave_lock(job, function, key);
end
$$;
comment on function worker.step_close(bigint, bigint, text, text, text, timestamptz, text[], jsonb) is
  'Second half of worker.run_step: checks the claim again under a share lock and writes the mark';

create or replace function worker.run_step(job bigint, claim bigint, step text, function text, call text, arguments jsonb,
  key text, tags text[], out ran boolean, out result text)
language plpgsql
as $$
declare
  began timestamptz;
  answer jsonb;
begin
  ran := worker.step_open(job, claim, step, function, key);
  if not ran then
    return;
  end if;
  began := pg_catalog.clock_timestamp();
  execute call into answer using arguments;
  perform worker.step_close(job, claim, step, function, key, began, tags, answer);
  result := pg_catalog.left(answer::text, 10000);
end
$$;
comment on function worker.run_step(bigint, bigint, text, text, text, jsonb, text, text[]) is
  'Runs one step under a claim: lock, check, look, call, check again, mark, all in one transaction. ran = false: it was done already. Send it in autocommit, under a statement_timeout set before';

create or replace function worker.step_call(function text, arguments text[], out call text, out fault text)
language plpgsql stable
as $$
declare
  f record;
  given text;
  inputs text[];
  missing text;
  listed text[] := '{}';
  candidates integer;
begin
  select count(*) into candidates from pg_catalog.pg_proc p
  where p.oid = any (worker.visible_functions(function));
  select p.oid, p.prokind, p.proretset, p.prorettype, p.provariadic, p.proargnames, p.proargmodes, p.pronargs, p.pronargdefaults,
         p.proargtypes::oid[] as argtypes, pg_catalog.format('%I.%I', n.nspname, p.proname) as qualified
  into f from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where p.oid = any (worker.visible_functions(function))
  order by (p.pronargs = pg_catalog.cardinality(arguments)) desc, p.oid limit 1;
  fault := case
    when candidates = 0 then pg_catalog.format('function %s does not exist on search_path %s', function, pg_catalog.current_setting('search_path'))
    when candidates > 1 then pg_catalog.format('function %s is not unique: %s of that name', function, candidates)
    when f.prokind <> 'f' then pg_catalog.format('%s is not a plain function', function)
    when f.provariadic <> 0 then pg_catalog.format('%s is variadic, and arguments go by name', function)
    when not pg_catalog.has_function_privilege(f.oid, 'execute') then pg_catalog.format('no right to execute %s', function)
    when f.pronargs - f.pronargdefaults > pg_catalog.cardinality(arguments) or f.pronargs < pg_catalog.cardinality(arguments)
      then pg_catalog.format('function %s takes %s arguments (%s), arguments gives %s', function, f.pronargs,
             pg_catalog.pg_get_function_identity_arguments(f.oid), pg_catalog.cardinality(arguments)) end;
  if fault is not null then
    return;
  end if;
  -- Names of results may stand between those of arguments, whose types are listed alone.
  inputs := case when f.proargmodes is null then f.proargnames else array(
    select a.name from rows from (pg_catalog.unnest(f.proargnames), pg_catalog.unnest(f.proargmodes)) with ordinality as a (name, mode, place)
    where a.mode in ('i', 'b') order by a.place) end;
  foreach given in array arguments loop
    if not given = any (coalesce(inputs, '{}')) then
      fault := pg_catalog.format('function %s has no argument %s: (%s)', function, given, pg_catalog.pg_get_function_identity_arguments(f.oid));
      return;
    end if;
    listed := listed || worker.step_argument(given, f.argtypes[pg_catalog.array_position(inputs, given) - 1]);
  end loop;
  select name into missing from pg_catalog.unnest(inputs[1:f.pronargs - f.pronargdefaults]) as name where not name = any (arguments);
  if found then
    fault := pg_catalog.format('function %s needs argument %s: (%s)', function, missing, pg_catalog.pg_get_function_identity_arguments(f.oid));
    return;
  end if;
  call := pg_catalog.format(case
    when f.prorettype = 'void'::regtype then 'select null::jsonb from %s(%s)'
    when f.proretset then 'select pg_catalog.jsonb_agg(r) from (select * from %s(%s) limit 1000) r'
    when f.prorettype = 'jsonb'::regtype then 'select r from %s(%s) r'
    else 'select pg_catalog.to_jsonb(r) from %s(%s) r' end, f.qualified, pg_catalog.array_to_string(listed, ', '));
end
$$;
comment on function worker.step_call(text, text[]) is
  'The text that calls a step''s function with named arguments from a jsonb parameter, made once at start; or the fault that forbids it';

create or replace function worker.step_argument(name text, type oid) returns text
language sql stable
begin atomic
  -- With -1, for a type named without a modifier may be cut: character is character(1), bit is bit(1).
  -- A text is cast. An array, a row and a JSON value are more than their text: they are read as columns of a record, which
  -- keeps nulls, order and dimensions, and takes a JSON text as the type's own notation.
  select case when t.typcategory in ('A', 'C') or 'jsonb'::regtype in (t.oid, t.typbasetype) or 'json'::regtype in (t.oid, t.typbasetype)
    then format('%1$I => (select r.%1$I from pg_catalog.jsonb_to_record($1) as r(%1$I %2$s))', step_argument.name, format_type(t.oid, -1))
    else format('%1$I => ($1 ->> %1$L)::%2$s', step_argument.name, format_type(t.oid, -1)) end
  from pg_type t where t.oid = step_argument.type;
end;
comment on function worker.step_argument(text, oid) is
  'The text that gives one named argument of a step''s function, as its type wants it, from the jsonb parameter; part of worker.step_call';

create or replace function worker.visible_functions(function text) returns oid[]
language sql stable
begin atomic
  select coalesce(array_agg(p.oid), '{}') from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where case when strpos(function, '.') > 0
    then n.nspname = split_part(function, '.', 1) and p.proname = split_part(function, '.', 2)
    else p.proname = function and pg_catalog.pg_function_is_visible(p.oid) end;
end;
comment on function worker.visible_functions(text) is 'The functions a name stands for: qualified, or found on the search_path';

create or replace function worker.begin_steps(job bigint, claim bigint, names text[])
returns table (name text, done boolean, seconds double precision)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  j record;
begin
  select q.job_type, q.attempt, q.claim, q.status, q.cancel_requested_at into j from worker.job_queue q where q.id = job;
  perform worker.check_claim(job, j.status, j.claim, begin_steps.claim, j.cancel_requested_at);
  insert into worker.job_step as s (job_id, name, status, attempt, claim)
  select job, n, 'waiting', j.attempt, begin_steps.claim from unnest(names) n order by n
  on conflict on constraint job_step_pkey do update set status = 'waiting', attempt = excluded.attempt,
    claim = excluded.claim, started_at = null, finished_at = null
  where s.status <> 'completed';
  return query
  with recent as materialized (
    select q.id from worker.job_queue q where q.job_type = j.job_type and q.id < job order by q.id desc limit 20
  ), history as (
    select h.name,
      percentile_cont(0.5) within group (order by extract(epoch from h.finished_at - h.started_at)::double precision) as median
    from recent r cross join lateral (
      select s.name, s.started_at, s.finished_at from worker.job_step s where s.job_id = r.id and s.status = 'completed'
      offset 0) h
    group by h.name
  )
  select n, coalesce(s.status = 'completed', false), h.median
  from unnest(names) n
  left join worker.job_step s on s.job_id = job and s.name = n
  left join history h on h.name = n;
end
$$;
comment on function worker.begin_steps(bigint, bigint, text[]) is
  'Opens the timeline of an attempt; answers with the steps, which of them are done, and the median seconds of each over the last 20 jobs of the type';

drop function if exists worker.step_began(bigint, bigint, text);  -- of releases that did not tell the seconds
create or replace function worker.step_began(job bigint, claim bigint, step text, seconds double precision default 0)
returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
as $$
begin
  update worker.job_step s set status = 'running', error = null,
    started_at = clock_timestamp() - make_interval(secs => step_began.seconds)
  where s.job_id = job and s.name = step and s.claim = step_began.claim and s.status in ('waiting', 'failed');
  return found;
exception when lock_not_available then
  return false;  -- for eyes only: an orphan of this step still holds the row
end
$$;
comment on function worker.step_began(bigint, bigint, text, double precision) is
  'Shows a step that has run for some seconds as running; for eyes only, over a control connection';

drop function if exists worker.step_failed(bigint, bigint, text, text);  -- of releases that did not tell the seconds
create or replace function worker.step_failed(job bigint, claim bigint, step text, message text,
  seconds double precision default 0) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s'
as $$
begin
  update worker.job_step s set status = 'failed', error = left(message, 2000), finished_at = clock_timestamp(),
    started_at = clock_timestamp() - make_interval(secs => step_failed.seconds)
  from worker.job_queue q
  where s.job_id = job and s.name = step and s.claim = step_failed.claim and s.status <> 'completed'
    and q.id = job and q.claim = step_failed.claim and q.status = 'running';
  return found;
end
$$;
comment on function worker.step_failed(bigint, bigint, text, text, double precision) is 'Records that a step failed after some seconds, in a transaction of its own, fenced by the claim';

create or replace function worker.progress(job bigint, claim bigint, phase text, progress jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1s'
as $$
begin
  update worker.job_queue j set phase = coalesce(progress.phase, j.phase), progress = coalesce(progress.progress, j.progress)
  where j.id = job and j.claim = progress.claim and j.status = 'running';
  return found;
end
$$;
comment on function worker.progress(bigint, bigint, text, jsonb) is 'Writes phase and progress of a running job, fenced by the claim; false = the claim is lost';
