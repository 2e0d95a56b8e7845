-- The functions of the schema: there, as this release has them, and nobody else's among them.
with wanted as (
  select w.signature, w.body, w.definer, w.settings, to_regprocedure(w.signature)::oid as oid
  from jsonb_to_recordset($1::jsonb #> '{release,functions}')
    as w (signature text, body text, definer boolean, settings text[])
), there as (
  select p.oid, p.prosrc, p.prosecdef, p.proowner, (pg_identify_object('pg_proc'::regclass, p.oid, 0)).identity as name,
    array(select s from unnest(p.proconfig) s order by s) as settings,
    exists (select from unnest(p.proconfig) s where s like 'search\_path=%') as pinned
  from pg_proc p where p.pronamespace = 'worker'::regnamespace
)
select 'fault' as level, 'schema.function_missing' as code,
  'missing, or with other arguments: ' || string_agg(w.signature, ', ' order by w.signature) as said,
  'run `worker migrate --again`' as cure
from wanted w where w.oid is null having count(*) > 0
union all
select 'fault', 'schema.function_changed',
  'not as this release has them: ' || string_agg(w.signature, ', ' order by w.signature), 'run `worker migrate --again`'
from wanted w join there t using (oid)
where (w.body is not null and w.body <> md5(t.prosrc)) or w.definer <> t.prosecdef
  or (w.settings <> t.settings and (t.pinned or not t.prosecdef))
having count(*) > 0
union all
select 'fault', 'schema.function_path', t.name || ' runs as its owner, with the search_path of whoever calls it',
  format('alter function %s set search_path = pg_catalog, pg_temp;', t.name)
from there t where t.prosecdef and not t.pinned
union all
select 'warning', 'schema.function_foreign', t.name || ' is none of this release''s', format('drop function %s;', t.name)
from there t where not exists (select from wanted w where w.oid = t.oid)
union all
select 'fault', 'schema.owner', format('%s belongs to %s', t.name, t.proowner::regrole),
  format('alter function %s owner to worker_owner;', t.name)
from there t where t.proowner <> 'worker_owner'::regrole
