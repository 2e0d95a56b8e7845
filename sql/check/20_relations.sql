-- The tables and views of the schema, with their indexes, and how they are kept.
with relations as (
  select w.name, w.kind, w.unlogged, w.options, to_regclass(w.name) as oid
  from jsonb_to_recordset($1::jsonb #> '{release,relations}') as w (name text, kind text, unlogged boolean, options text[])
), indexes as (
  select w.name, w.relation, w.statement, i.oid, x.indisvalid and x.indisready as sound, x.indisunique as single
  from jsonb_to_recordset($1::jsonb #> '{release,indexes}') as w (name text, relation text, statement text)
  left join pg_class i on i.relname = w.name and i.relnamespace = 'worker'::regnamespace and i.relkind = 'i'
  left join pg_index x on x.indexrelid = i.oid
  where to_regclass(w.relation) is not null
), options as (
  select r.name, r.kind, c.reloptions as found, array(select w from unnest(r.options) w where w <> all (coalesce(c.reloptions, '{}'))) as less
  from relations r join pg_class c on c.oid = r.oid
)
select 'fault' as level, 'schema.relation_missing' as code, format('the %s %s is missing', r.kind, r.name) as said,
  case r.kind when 'view' then 'run `worker migrate --again`'
    else 'restore it from a backup, or run `worker uninstall --print` and start anew' end as cure
from relations r where r.oid is null
union all
select case when i.statement like 'create unique%' then 'fault' else 'warning' end, 'schema.index_missing',
  format('the index %s of %s is missing', i.name, i.relation), regexp_replace(i.statement, ' index ', ' index concurrently ')
from indexes i where i.oid is null
union all
select case when i.single then 'fault' else 'warning' end, 'schema.index_invalid',
  format('the index %s of %s is not valid: its making was broken off', i.name, i.relation),
  format('reindex index concurrently worker.%I;', i.name)
from indexes i where not i.sound
union all
select case i.single when true then 'fault' else 'warning' end, 'schema.index_changed',
  format('the index %s of %s is another than this release''s', i.name, i.relation),
  format('drop index worker.%I; %s', i.name, i.statement)
from indexes i, jsonb_to_record($1::jsonb) as n (noise text)
where regexp_replace(lower(pg_get_indexdef(i.oid)), n.noise, '', 'g') <> regexp_replace(lower(i.statement), n.noise, '', 'g')
union all
select 'warning', 'schema.options', format('%s has not the options %s', o.name, array_to_string(o.less, ', ')),
  format('alter table %s set (%s);', o.name, array_to_string(o.less, ', '))
from options o where o.less <> '{}' and o.kind = 'table'
union all
select 'fault', 'schema.view', format('the view %s shows whoever may read it all that its owner sees', o.name),
  format('alter view %s set (%s);', o.name, array_to_string(o.less, ', '))
from options o where o.less <> '{}' and o.kind = 'view'
union all
select 'fault', 'schema.unlogged', format('%s is unlogged: a crash of the server empties it', r.name), format('alter table %s set logged;', r.name)
from relations r join pg_class c on c.oid = r.oid where r.kind = 'table' and c.relpersistence = 'u' and not r.unlogged
union all
select 'warning', 'schema.autovacuum', o.name || ' is not vacuumed by itself', format('alter table %s reset (autovacuum_enabled);', o.name)
from options o where o.found && '{autovacuum_enabled=false,autovacuum_enabled=off,autovacuum_enabled=0,autovacuum_enabled=no}'
union all
select 'fault', 'schema.owner', format('%s belongs to %s', r.name, c.relowner::regrole),
  format('alter %s %s owner to worker_owner;', r.kind, r.name)
from relations r join pg_class c on c.oid = r.oid where c.relowner <> 'worker_owner'::regrole
