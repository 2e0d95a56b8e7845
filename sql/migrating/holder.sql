-- Who holds the advisory lock $1 of this database, as every login may see it. Asked before there is a schema.
select l.pid, a.usename, coalesce(nullif(a.application_name, ''), 'without a name') as name
from pg_locks l
left join pg_stat_activity a using (pid)
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and l.classid::bigint << 32 | l.objid::bigint = $1
  and l.database = (select d.oid from pg_database d where d.datname = current_database())
limit 1
