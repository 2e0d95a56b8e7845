-- What goes on just now and is in the queue's way.
with limits as (
  select ($1::jsonb #>> '{limits,seconds}')::double precision as seconds, ($1::jsonb #>> '{limits,wal}')::numeric as wal,
    ($1::jsonb #>> '{limits,notifications}')::double precision as notifications
), held as (
  select distinct on (l.pid) l.pid, l.relation::regclass::text as relation
  from pg_locks l join pg_class c on c.oid = l.relation
  where l.database = (select d.oid from pg_database d where d.datname = current_database())
    and c.relnamespace = to_regnamespace('worker') and l.granted and l.mode = 'AccessExclusiveLock' and l.pid <> pg_backend_pid()
  order by l.pid, l.relation
), sessions as (
  select a.pid, clock_timestamp() - a.xact_start as age, a.state, format('%s, user %s', coalesce(nullif(a.application_name, ''), 'without a name'), a.usename) as who
  from pg_stat_activity a
  where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
)
select 'warning' as level, 'activity.locked' as code, format('process %s of the server holds %s locked for all', h.pid, h.relation) as said,
  format('select pg_terminate_backend(%s);', h.pid) as cure
from held h
union all
select 'warning', 'activity.transaction',
  format('a transaction is open for %s (pid %s, %s, %s): no vacuum cleans up behind the queue', date_trunc('second', s.age), s.pid, s.who, s.state),
  format('select pg_terminate_backend(%s);', s.pid)
from sessions s, limits l where s.age > make_interval(secs => l.seconds)
union all
select 'warning', 'activity.prepared',
  format('the transaction %L is prepared for %s: commit it, or roll it back', p.gid, date_trunc('second', clock_timestamp() - p.prepared)),
  format('rollback prepared %L;', p.gid)
from pg_prepared_xacts p, limits l
where p.database = current_database() and p.prepared < clock_timestamp() - make_interval(secs => l.seconds)
union all
select 'warning', 'activity.slot',
  format('nobody reads the replication slot %s, and the server keeps %s for it', s.slot_name, case when s.xmin is not null or s.catalog_xmin is not null
    then 'dead rows' else pg_size_pretty(pg_current_wal_lsn() - s.restart_lsn) end),
  format('select pg_drop_replication_slot(%L);', s.slot_name)
from pg_replication_slots s, limits l
where not s.active and not pg_is_in_recovery()
  and (s.xmin is not null or s.catalog_xmin is not null or pg_current_wal_lsn() - s.restart_lsn > l.wal)
union all
select 'warning', 'activity.notifications',
  format('the server''s queue of notifications is %s %% full: a session listens and does not end its transaction', round(100 * u.usage::numeric, 1)),
  coalesce((select format('select pg_terminate_backend(%s);', s.pid) from sessions s where s.age is not null order by s.age desc limit 1),
    'end the oldest transaction of a session that listens')
from (select pg_notification_queue_usage() as usage) u, limits l where u.usage > l.notifications
union all
select 'info', 'activity', format('this login is not shown the transactions of others: `grant pg_read_all_stats to %I` would change that', current_user), null
where not pg_has_role(current_user, 'pg_read_all_stats', 'usage')
