-- How the tables and indexes have kept, by what the server counted.
with limits as (
  select ($1::jsonb #>> '{limits,dead}')::bigint as dead, ($1::jsonb #>> '{limits,pages}')::bigint as pages
)
select 'warning' as level, 'storage.dead' as code,
  format('%s has %s dead rows beside %s live ones', s.relid::regclass, s.n_dead_tup, s.n_live_tup) as said,
  format('vacuum (analyze) %s;', s.relid::regclass) as cure
from pg_stat_user_tables s, limits l
where s.schemaname = 'worker' and s.n_dead_tup > l.dead and s.n_dead_tup > s.n_live_tup / 5
union all
select 'warning', 'storage.bloat',
  format('the index %s has %s for %s entries', i.oid::regclass, pg_size_pretty(pg_relation_size(i.oid)), greatest(i.reltuples, 0)::bigint),
  format('reindex index concurrently %s;', i.oid::regclass)
from pg_class i join pg_index x on x.indexrelid = i.oid, limits l
-- A hundred bytes an entry, four times over, is generous for every index of the queue.
where i.relnamespace = 'worker'::regnamespace and i.relpages > l.pages and i.relpages > 4 * (1 + greatest(i.reltuples, 0) * 100 / 8192)
