-- How many connections there may be for this login, how many others hold, and how many daemons are alive.
select least(
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
      - coalesce(current_setting('reserved_connections', true)::integer, 0),
    (select nullif(r.rolconnlimit, -1) from pg_roles r where r.rolname = current_user),
    (select nullif(d.datconnlimit, -1) from pg_database d where d.datname = current_database())) as most,
  (select count(*) from pg_stat_activity a
   where a.backend_type = 'client backend' and a.application_name not like 'worker %') as used,
  (select count(*) from worker.process p
   where p.dead_at is null and p.stopped_at is null and p.lease_until >= worker.now()) as alive
