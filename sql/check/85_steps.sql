-- The functions of steps and schedules: whose they are, and with whose search_path they run.
with path as (
  select n.oid, n.nspname, p.place
  from string_to_table($1::jsonb #>> '{config,search_path}', ',') with ordinality as p (part, place)
  join pg_namespace n on n.nspname = trim(both ' "' from p.part)
), named as (
  select distinct p.oid, p.proowner, p.prosecdef, n.nspname, (pg_identify_object('pg_proc'::regclass, p.oid, 0)).identity as name,
    exists (select from unnest(p.proconfig) s where s like 'search\_path=%') as pinned
  from jsonb_array_elements_text($1::jsonb #> '{config,functions}') f (name)
  join pg_proc p on p.proname = case when strpos(f.name, '.') > 0 then split_part(f.name, '.', 2) else f.name end
  join pg_namespace n on n.oid = p.pronamespace
  where case when strpos(f.name, '.') > 0 then n.nspname = split_part(f.name, '.', 1)
    else n.oid = (select x.oid from path x join pg_proc q on q.pronamespace = x.oid and q.proname = f.name order by x.place limit 1) end
)
select 'warning' as level, 'functions.path' as code, format('%s runs as its owner, with the search_path of whoever calls it', n.name) as said,
  format('alter function %s set search_path = %I, pg_temp;', n.name, n.nspname) as cure
from named n where n.prosecdef and not n.pinned
union all
select 'warning', 'functions.owner', format('%s belongs to %s, whom end users act as: whoever may change it runs as the daemon', n.name, r.rolname),
  format('alter function %s owner to %s;', n.name, d.datdba::regrole)
from named n join pg_roles r on r.oid = n.proowner join pg_database d on d.datname = current_database()
where not r.rolsuper and (r.rolname in ('anon', 'authenticated') or pg_has_role(r.oid, 'worker_tenant', 'usage'))
