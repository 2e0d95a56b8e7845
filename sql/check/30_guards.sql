-- What stands before the rows: triggers, rules, row-level security and its policies.
with triggers as (
  select w.name, w.relation, w.statement, to_regclass(w.relation) as oid, t.oid as found, t.tgenabled
  from jsonb_to_recordset($1::jsonb #> '{release,triggers}') as w (name text, relation text, statement text)
  left join pg_trigger t on t.tgname = w.name and t.tgrelid = to_regclass(w.relation)
  where to_regclass(w.relation) is not null
), policies as (
  select w.name, w.relation, w.statement, to_regclass(w.relation) as oid
  from jsonb_to_recordset($1::jsonb #> '{release,policies}') as w (name text, relation text, statement text)
  where to_regclass(w.relation) is not null
), forced as (
  select w.relation, c.relrowsecurity, c.relforcerowsecurity
  from jsonb_to_recordset($1::jsonb #> '{release,forced}') as w (relation text) join pg_class c on c.oid = to_regclass(w.relation)
)
select 'fault' as level, 'schema.trigger_missing' as code, format('the trigger %s of %s is missing', t.name, t.relation) as said,
  t.statement as cure
from triggers t where t.tgenabled is null
union all
select 'fault', 'schema.trigger_changed', format('the trigger %s of %s is another than this release''s', t.name, t.relation),
  format('drop trigger %I on %s; %s', t.name, t.relation, t.statement)
from triggers t, jsonb_to_record($1::jsonb) as n (noise text)
where regexp_replace(lower(pg_get_triggerdef(t.found)), n.noise, '', 'g') <> regexp_replace(lower(t.statement), n.noise, '', 'g')
union all
select 'fault', 'schema.trigger_off', format('the trigger %s of %s does not fire', t.name, t.relation),
  format('alter table %s enable trigger %I;', t.relation, t.name)
from triggers t where t.tgenabled not in ('O', 'A') and t.name <> 'ring'  -- whether that one rings is worker.wake
union all
select 'warning', 'schema.wake',
  format('worker.wake is %s, the database has the other', $1::jsonb #>> '{config,wake}'), 'run `worker migrate`'
from triggers t where t.name = 'ring' and (t.tgenabled <> 'D') <> ($1::jsonb #>> '{config,wake}' = 'ring')
union all
select 'warning', 'schema.trigger_foreign',
  format('the trigger %s of %s is none of this release''s: it runs in the transactions of producers and of the daemon', t.tgname, c.oid::regclass),
  format('drop trigger %I on %s;', t.tgname, c.oid::regclass)
from pg_trigger t join pg_class c on c.oid = t.tgrelid
where c.relnamespace = 'worker'::regnamespace and not t.tgisinternal
  and not exists (select from triggers w where w.oid = t.tgrelid and w.name = t.tgname)
union all
select 'warning', 'schema.rule_foreign', format('the rule %s of %s is none of this release''s', r.rulename, c.oid::regclass),
  format('drop rule %I on %s;', r.rulename, c.oid::regclass)
from pg_rewrite r join pg_class c on c.oid = r.ev_class
where c.relnamespace = 'worker'::regnamespace and r.rulename <> '_RETURN'
union all
select 'fault', 'schema.security', format('row-level security of %s is %s', f.relation,
    case when f.relrowsecurity then 'not forced' else 'off' end),
  format('alter table %1$s enable row level security; alter table %1$s force row level security;', f.relation)
from forced f where not (f.relrowsecurity and f.relforcerowsecurity)
union all
select 'fault', 'schema.policy_missing', format('the policy %s of %s is missing', p.name, p.relation), p.statement
from policies p where not exists (select from pg_policy g where g.polrelid = p.oid and g.polname = p.name)
union all
select 'fault', 'schema.policy_changed', format('the policy %s of %s is another than this release''s', p.name, p.relation),
  format('drop policy %I on %s; %s', p.name, p.relation, p.statement)
from policies p join pg_policy g on g.polrelid = p.oid and g.polname = p.name, jsonb_to_record($1::jsonb) as n (noise text)
-- As it was written, but for the noise: what it is for, to whom, and both expressions.
where regexp_replace(lower(format('create policy %s on %s %s %s to %s %s %s', g.polname, p.relation,
    case when g.polpermissive then '' else 'restrictive' end,
    case g.polcmd when 'r' then 'for select' when 'a' then 'for insert' when 'w' then 'for update' when 'd' then 'for delete' end,
    (select string_agg(case r when 0 then 'public' else r::regrole::text end, ', ' order by array_position(g.polroles, r)) from unnest(g.polroles) r),
    'using ' || pg_get_expr(g.polqual, g.polrelid), 'with check ' || pg_get_expr(g.polwithcheck, g.polrelid))), n.noise, '', 'g')
  <> regexp_replace(lower(p.statement), n.noise, '', 'g')
union all
select 'fault', 'schema.policy_foreign', format('the policy %s of %s is none of this release''s', g.polname, c.oid::regclass),
  format('drop policy %I on %s;', g.polname, c.oid::regclass)
from pg_policy g join pg_class c on c.oid = g.polrelid
where c.relnamespace = 'worker'::regnamespace
  and not exists (select from policies p where p.oid = g.polrelid and p.name = g.polname)
