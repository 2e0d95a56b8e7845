-- Triggers of applications that enqueue: with rights that do not depend on who writes to the table.
with producers as (
  select distinct p.oid, p.proowner, p.prosecdef, (pg_identify_object('pg_proc'::regclass, p.oid, 0)).identity as name, n.nspname,
    t.tgrelid, exists (select from unnest(p.proconfig) s where s like 'search\_path=%') as pinned
  from pg_trigger t join pg_proc p on p.oid = t.tgfoid join pg_namespace n on n.oid = p.pronamespace
    join pg_class c on c.oid = t.tgrelid
  where not t.tgisinternal and c.relnamespace <> 'worker'::regnamespace
    and p.prosrc ~* '\mworker\.(enqueue|enqueue_many|job_queue)\M'
), writers as (
  select distinct p.oid, r.oid as role, r.rolname
  from producers p join pg_class c on c.oid = p.tgrelid
  cross join aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) e join pg_roles r on r.oid = e.grantee
  where e.privilege_type in ('INSERT', 'UPDATE', 'DELETE') and not r.rolsuper
    and not pg_has_role(r.oid, 'worker_enqueue', 'usage') and not pg_has_role(r.oid, 'worker_tenant', 'usage')
)
select 'fault' as level, 'producers.invoker' as code,
  format('%s enqueues with the rights of whoever writes to the table, and %s may write but not enqueue', p.name,
    (select string_agg(quote_ident(w.rolname), ', ' order by w.rolname) from writers w where w.oid = p.oid)) as said,
  format('alter function %1$s security definer set search_path = %2$I, pg_temp;', p.name, p.nspname)
    || case when pg_has_role(p.proowner, 'worker_enqueue', 'usage') then '' else format(' grant worker_enqueue to %s;', p.proowner::regrole) end as cure
from (select distinct oid, proowner, prosecdef, name, nspname from producers) p
where not p.prosecdef and exists (select from writers w where w.oid = p.oid)
union all
select 'fault', 'producers.owner', format('%s enqueues as %s, who may not', p.name, p.proowner::regrole),
  format('grant worker_enqueue to %s;', p.proowner::regrole)
from (select distinct oid, proowner, prosecdef, name from producers) p
where p.prosecdef and not pg_has_role(p.proowner, 'worker_enqueue', 'usage')
union all
select 'warning', 'producers.path', format('%s runs as its owner, with the search_path of whoever writes to the table', p.name),
  format('alter function %s set search_path = %I, pg_temp;', p.name, p.nspname)
from (select distinct oid, prosecdef, name, nspname, pinned from producers) p
where p.prosecdef and not p.pinned
union all
select 'fault', 'producers.exposed', format('PostgREST shows the schema worker to the web: pgrst.db_schemas of %s names it',
    coalesce(nullif(d.setrole, 0)::regrole::text, 'all')),
  format('alter role %s%s set pgrst.db_schemas = %L; notify pgrst, ''reload config'';', coalesce(nullif(d.setrole, 0)::regrole::text, 'all'),
    coalesce(' in database ' || quote_ident(b.datname), ''),
    array_to_string(array(select trim(s) from string_to_table(split_part(c.entry, '=', 2), ',') s where trim(s) <> 'worker'), ', '))
from pg_db_role_setting d cross join unnest(d.setconfig) c (entry) left join pg_database b on b.oid = d.setdatabase
where $1::jsonb is not null and c.entry like 'pgrst.db\_schemas=%' and d.setdatabase in (0, (select o.oid from pg_database o where o.datname = current_database()))
  and exists (select from string_to_table(split_part(c.entry, '=', 2), ',') s where trim(both ' "' from s) = 'worker')
