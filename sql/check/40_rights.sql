-- Who may do what in the schema: no less than this release grants, and no more.
with wanted as (
  select w.kind, w."right", w."column", coalesce(to_regrole(w.role)::oid, 0) as role, w.object as name,
    case w.kind when 'function' then to_regprocedure(w.object)::oid when 'schema' then to_regnamespace(w.object)::oid
      when 'type' then to_regtype(w.object)::oid
      else to_regclass(w.object)::oid end as object
  from jsonb_to_recordset($1::jsonb #> '{release,rights}') as w (kind text, object text, "column" text, "right" text, role text)
  where w.role = 'public' or to_regrole(w.role) is not null
), acls as (
  select 'function' as kind, p.oid, (pg_identify_object('pg_proc'::regclass, p.oid, 0)).identity as name, null as "column",
    coalesce(p.proacl, acldefault('f', p.proowner)) as acl, p.proowner as owner
  from pg_proc p where p.pronamespace = 'worker'::regnamespace
  union all
  select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid, 'worker.' || quote_ident(c.relname), null, c.relacl, c.relowner
  from pg_class c where c.relnamespace = 'worker'::regnamespace and c.relacl is not null
  union all
  select 'table', c.oid, 'worker.' || quote_ident(c.relname), a.attname, a.attacl, c.relowner
  from pg_class c join pg_attribute a on a.attrelid = c.oid
  where c.relnamespace = 'worker'::regnamespace and a.attacl is not null
  union all
  select 'type', t.oid, w.type, null, coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner
  from jsonb_to_recordset($1::jsonb #> '{release,closed}') as w (type text) join pg_type t on t.oid = to_regtype(w.type)
  union all
  select 'schema', n.oid, 'worker', null, n.nspacl, n.nspowner from pg_namespace n where n.nspname = 'worker'
), found as (
  select a.kind, a.oid as object, a.name, a."column", lower(e.privilege_type) as "right", e.grantee as role
  from acls a cross join aclexplode(a.acl) e where e.grantee <> a.owner
), less as (
  select w.kind, w.name, w."column", w."right", w.role from wanted w
  where w.object is not null and not exists (
    select from found f where f.object = w.object and f.role = w.role and f."right" = w."right"
      and (f."column" = w."column" or f."column" is null))
), more as (
  select f.*, r.rolname is null or r.rolname in ('anon', 'authenticated') as everybody
  from found f left join pg_roles r on r.oid = f.role
  where not exists (
      select from wanted w where w.object = f.object and w.role = f.role and w."right" = f."right"
        and w."column" is not distinct from f."column")
    and not coalesce(r.rolsuper, false) and f.role <> 'worker_owner'::regrole
    -- To let a role of one's own read is everybody's own affair.
    and (r.rolname is null or r.rolname in ('anon', 'authenticated') or r.rolname like 'worker\_%'
      or f."right" not in ('select', 'usage'))
), members as (
  select to_regrole(w.role)::oid as role, to_regrole(w.member)::oid as member
  from jsonb_to_recordset($1::jsonb #> '{release,members}') as w (role text, member text)
), said as (
  select l.role, false as more, false as everybody, l.name, l."right" || coalesce(' (' || quote_ident(l."column") || ')', '') as "right",
    case l.kind when 'table' then '' else l.kind || ' ' end || l.name as object, null as again
  from less l
  union all
  select m.role, true, m.everybody, m.name, m."right" || coalesce(' (' || quote_ident(m."column") || ')', ''),
    case m.kind when 'table' then '' else m.kind || ' ' end || m.name,
    -- Who revokes a right on a table revokes it on its columns, too.
    (select string_agg(format(' grant %s (%I) on %s to %s;', w."right", w."column", w.name, m.role::regrole), '' order by w."column")
     from wanted w where m."column" is null and w."column" is not null and w.object = m.object and w.role = m.role and w."right" = m."right")
  from more m
)
select case when s.more and not s.everybody then 'warning' else 'fault' end as level,
  case when not s.more then 'rights.missing' when s.everybody then 'rights.everybody' else 'rights.excess' end as code,
  format('%s %s: %s', case s.role when 0 then 'everybody' else s.role::regrole::text end,
    case when s.more then 'may do what this release does not grant' else 'lacks' end,
    string_agg(format('%s on %s', s."right", s.name), ', ' order by s.name, s."right")) as said,
  string_agg(format(case when s.more then 'revoke %s on %s from %s;%s' else 'grant %s on %s to %s;%s' end, s."right", s.object,
    case s.role when 0 then 'public' else s.role::regrole::text end, s.again), ' ' order by s.name, s."right") as cure
from said s group by s.role, s.more, s.everybody
union all
select 'fault', 'rights.member_missing', format('%s is no member of %s', m.member::regrole, m.role::regrole),
  format('grant %s to %s;', m.role::regrole, m.member::regrole)
from members m where not pg_has_role(m.member, m.role, 'member')
union all
select 'fault', 'rights.member_excess', format('%s is a member of %s', b.rolname, a.roleid::regrole),
  format('revoke %s from %I;', a.roleid::regrole, b.rolname)
from pg_auth_members a join pg_roles b on b.oid = a.member join pg_roles g on g.oid = a.roleid
where g.rolname in ('worker_owner', 'worker_run', 'worker_enqueue', 'worker_tenant', 'worker_operate', 'worker_read')
  and (b.rolname in ('worker_run', 'worker_enqueue', 'worker_tenant', 'worker_operate', 'worker_read', 'worker_owner')
    or b.rolname = 'anon' or (b.rolname = 'authenticated' and g.rolname <> 'worker_tenant'))
  and not exists (select from members m where m.role = a.roleid and m.member = a.member)
union all
select 'fault', 'rights.role', format('%s %s', r.rolname, case when r.rolsuper then 'is a superuser' when r.rolbypassrls then 'passes row-level security by'
    when r.rolcreaterole then 'may make roles' else 'may log in' end),
  format('alter role %I nologin nosuperuser nobypassrls nocreaterole;', r.rolname)
from pg_roles r
where r.rolname in ('worker_owner', 'worker_run', 'worker_enqueue', 'worker_tenant', 'worker_operate', 'worker_read')
  and (r.rolcanlogin or r.rolsuper or r.rolbypassrls or r.rolcreaterole)
