-- What worker.toml declares, made known to SQL.

create or replace function worker.declare(declarations jsonb) returns table (name text, change text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  turned text[];
begin
  select array_agg(t.name) into turned
  from jsonb_to_recordset(declarations) as g (name text, fair boolean) join worker.job_type t on t.name = g.name
  where t.fair <> coalesce(g.fair, false);

  return query
  with given as (
    select d.* from jsonb_to_recordset(declarations) as d (
      name text, priority smallint, max_attempts smallint, unique_key text, unique_while text, on_conflict text,
      concurrency_key text, coalesce_key text, "then" text[], then_failed text[], announces text,
      fallback boolean, expires double precision, deadline double precision, "limit" integer, rate jsonb,
      backlog jsonb, producers text[], sources jsonb, enabled boolean, audit boolean, fair boolean, digest text)
  ), written as (
    insert into worker.job_type as t (name, priority, max_attempts, unique_key, unique_while, on_conflict,
      concurrency_key, coalesce_key, then_types, then_failed, announces, fallback, expires, deadline, limits, backlog,
      producers, sources, enabled, audit, fair, digest, declared_at)
    select g.name, coalesce(g.priority, 100::smallint), coalesce(g.max_attempts, 5::smallint), g.unique_key,
      coalesce(g.unique_while, 'waiting'), coalesce(g.on_conflict, 'keep'), g.concurrency_key, g.coalesce_key,
      coalesce(g."then", '{}'), coalesce(g.then_failed, '{}'), g.announces, coalesce(g.fallback, false),
      make_interval(secs => g.expires), make_interval(secs => g.deadline),
      jsonb_strip_nulls(jsonb_build_object('running', g."limit", 'rate', g.rate)), g.backlog,
      coalesce(g.producers, '{app}'), coalesce(g.sources, '{}'), coalesce(g.enabled, true), coalesce(g.audit, false),
      coalesce(g.fair, false), g.digest, clock_timestamp()
    from given g
    order by g.name
    on conflict on constraint job_type_pkey do update set
      priority = excluded.priority, max_attempts = excluded.max_attempts, unique_key = excluded.unique_key,
      unique_while = excluded.unique_while, on_conflict = excluded.on_conflict,
      concurrency_key = excluded.concurrency_key, coalesce_key = excluded.coalesce_key,
      then_types = excluded.then_types, then_failed = excluded.then_failed, announces = excluded.announces,
      fallback = excluded.fallback, expires = excluded.expires, deadline = excluded.deadline,
      limits = excluded.limits, backlog = excluded.backlog, producers = excluded.producers, sources = excluded.sources,
      enabled = excluded.enabled, audit = excluded.audit, fair = excluded.fair, digest = excluded.digest, declared_at = excluded.declared_at
    where t.digest is distinct from excluded.digest
    returning t.name, t.xmax = '0'::xid as fresh
  )
  select w.name, case when w.fresh then 'declared' else 'changed' end from written w order by w.name;

  perform worker.fit_slots(t.name, (t.limits ->> 'running')::integer)
  from worker.job_type t
  where t.name in (select g.name from jsonb_to_recordset(declarations) as g (name text))
    and (t.limits ? 'running' or exists (select from worker.type_slot s where s.job_type = t.name))
  order by t.name;
  if turned is not null then
    perform worker.turn_rows(turned);
  end if;
end
$$;
comment on function worker.declare(jsonb) is
  'Declares job types (an array of objects as worker.toml gives them); answers with those that are new or changed. Writes only the types it names, never paused; the last declaration wins';
