-- What the login may do: it must be the daemon, and should be no more; and where it looks for functions.
with login as (
  select r.oid, quote_ident(r.rolname) as name, r.rolsuper, r.rolbypassrls, r.rolcreaterole,
    coalesce(pg_has_role(r.oid, to_regrole('worker_run'), 'usage'), false) as runs,
    coalesce(pg_has_role(r.oid, to_regrole('worker_run'), 'member'), false) as member,
    coalesce(pg_has_role(r.oid, to_regrole('worker_owner'), 'member'), false) as owns
  from pg_roles r where r.rolname = current_user
), path as (
  select trim(p.part) as named, n.oid, n.nspname
  from string_to_table($1::jsonb #>> '{config,search_path}', ',') p (part)
  left join pg_namespace n on n.nspname = trim(both ' "' from p.part)
  where trim(p.part) <> '"$user"'
)
select 'fault' as level, 'rights.login' as code, l.name || ' has not the rights of worker_run' as said,
  format(case when not l.member then 'grant worker_run to %s;' when current_setting('server_version_num')::integer < 160000
    then 'alter role %s inherit;' else 'grant worker_run to %s with inherit true;' end, l.name) as cure
from login l where not l.runs and to_regrole('worker_run') is not null
union all
select 'warning', 'rights.superuser', l.name || ' is a superuser, and so is every step',
  'create a login of its own: `create role my_worker login in role worker_run`, and name it in database.url'
from login l where l.rolsuper
union all
select 'warning', 'rights.power', format('%s, the daemon''s login, %s, and so may every step', l.name, case when l.owns then 'may act as worker_owner'
    when l.rolbypassrls then 'passes row-level security by' else 'may make roles' end),
  case when l.owns then format('revoke worker_owner from %s;', l.name) else format('alter role %s nobypassrls nocreaterole;', l.name) end
from login l where not l.rolsuper and (l.owns or l.rolbypassrls or l.rolcreaterole)
union all
select 'ok', 'rights', l.name || ' may run the daemon', null from login l where l.runs and not l.rolsuper
union all
select 'fault', 'rights.path_missing', format('database.search_path names %s, which does not exist', p.named),
  'correct database.search_path in worker.toml, or create the schema'
from path p where p.oid is null
union all
select 'fault', 'rights.path_usage', format('%s may not use the schema %I', l.name, p.nspname),
  format('grant usage on schema %I to %s;', p.nspname, l.name)
from path p, login l where not has_schema_privilege(p.oid, 'usage')
union all
select 'warning', 'rights.path_open',
  format('%s may make functions in the schema %I, where those of the steps are looked for', case e.grantee when 0 then 'everybody' else e.grantee::regrole::text end, p.nspname),
  format('revoke create on schema %I from %s;', p.nspname, case e.grantee when 0 then 'public' else e.grantee::regrole::text end)
from path p join pg_namespace n on n.oid = p.oid cross join aclexplode(n.nspacl) e left join pg_roles r on r.oid = e.grantee
where e.privilege_type = 'CREATE' and (e.grantee = 0 or r.rolname in ('anon', 'authenticated', 'worker_tenant', 'worker_enqueue'))
