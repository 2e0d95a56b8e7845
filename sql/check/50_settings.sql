-- Settings of the server that a queue suffers from, each with the place where it was set, which is where it is cured.
with judged (level, code, name, good, bad, said) as (
  values
    ('fault', 'settings.fsync', 'fsync', 'on', '{off}'::text[], 'a crash of the machine may destroy the database'),
    ('fault', 'settings.pages', 'full_page_writes', 'on', '{off}', 'a crash of the machine may destroy the database'),
    ('warning', 'settings.commit', 'synchronous_commit', 'on', '{off}',
     'a crash of the server loses what was committed just before: jobs vanish, or run again'),
    ('warning', 'settings.autovacuum', 'autovacuum', 'on', '{off}', 'nobody cleans up behind the queue, and claims become slow'),
    ('warning', 'settings.counts', 'track_counts', 'on', '{off}', 'nobody knows when to clean up behind the queue'),
    ('fault', 'settings.triggers', 'session_replication_role', 'origin', '{replica}', 'no trigger of the queue fires for this login'),
    ('fault', 'settings.security', 'row_security', 'on', '{off}', 'this login''s questions are refused where a policy applies')
), given as (
  select j.level, j.code, j.good, s.name, s.setting, s.source, j.said
  from judged j join pg_settings s on s.name = j.name where s.setting = any (j.bad)
  union all
  select 'warning', 'settings.timeout', '0', s.name, s.setting || coalesce(s.unit, ''), s.source,
    case s.name when 'lock_timeout' then 'every wait of a step for a lock is an error after that'
      when 'idle_session_timeout' then 'idle connections, the listener''s too, are ended after that'
      when 'transaction_timeout' then 'steps that take longer are ended'
      else 'handlers that wait inside a transaction are ended after that' end
  from pg_settings s
  where s.name in ('lock_timeout', 'idle_session_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')
    and s.setting <> '0' and s.source <> 'session'
    -- To end those who forget a transaction is wise; the daemon's own last a moment.
    and case s.name when 'idle_in_transaction_session_timeout' then s.setting::bigint < 10000 else true end
  union all
  select 'warning', 'settings.timeout', '0', 'statement_timeout', split_part(c.entry, '=', 2),
    case when d.setrole <> 0 and d.setdatabase <> 0 then 'database user' when d.setrole <> 0 then 'user'
      when d.setdatabase <> 0 then 'database' else 'global' end,
    'behind a transaction pooler the daemon''s own calls are ended after that'
  from pg_db_role_setting d cross join unnest(d.setconfig) c (entry)
  where not ($1::jsonb #>> '{way,keeps}')::boolean and c.entry like 'statement\_timeout=%' and split_part(c.entry, '=', 2) <> '0'
    and d.setrole in (0, current_user::regrole)
    and d.setdatabase in (0, (select b.oid from pg_database b where b.datname = current_database()))
)
select g.level, g.code, format('%s is %s: %s', g.name, g.setting, g.said) as said,
  case g.source
    when 'user' then format('alter role %I reset %I;', current_user, g.name)
    when 'database' then format('alter database %I reset %I;', current_database(), g.name)
    when 'database user' then format('alter role %I in database %I reset %I;', current_user, current_database(), g.name)
    when 'global' then format('alter role all reset %I;', g.name)
    when 'command line' then format('start the server without %s on its command line', g.name)
    when 'client' then format('take %s out of database.url, PGOPTIONS or the pooler''s settings', g.name)
    else format('alter system set %I = %L; select pg_reload_conf();', g.name, g.good) end as cure
from given g
