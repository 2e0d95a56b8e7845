-- Who does what one at a time is enough for.

create or replace function worker.alone(what text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  key bigint := hashtextextended(what, 0);
begin
  if pg_try_advisory_xact_lock(key) then
    return true;
  end if;
  -- Everybody may take an advisory lock, so only a daemon's counts: a stranger's must not stop what keeps the queue well.
  return not exists (
    select from pg_locks l join pg_stat_activity a on a.pid = l.pid join pg_database d on d.oid = l.database
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and d.datname = current_database()
      and l.classid::bigint = (key >> 32) & 4294967295 and l.objid::bigint = key & 4294967295
      and a.usesysid is not null and pg_has_role(a.usesysid, 'worker_run', 'member'));
end
$$;
comment on function worker.alone(text) is
  'Whether no other daemon does this now, until the end of the transaction; spares work, and nothing may depend on it: a lock that a stranger holds does not count';

revoke all on function worker.alone(text) from public;
