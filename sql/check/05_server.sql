-- The server: its version, its encoding, and whether it may be written to.
with server as (
  select current_setting('server_version') as version, current_setting('server_version_num')::integer as number,
    current_setting('server_encoding') as encoding
)
select 'ok' as level, 'database' as code, format('%s as %s, PostgreSQL %s', current_database(), session_user, s.version) as said, null as cure
from server s
union all
select 'fault', 'database.version', format('PostgreSQL %s is too old', s.version), 'use PostgreSQL 15 or newer' from server s where s.number < 150000
union all
select 'fault', 'database.encoding', 'its encoding is ' || s.encoding,
  'make a database with UTF8, `create database … template template0 encoding ''UTF8''`, and name it in database.url'
from server s where s.encoding <> 'UTF8'
union all
select 'fault', 'database.replica', 'it is a replica, which cannot be written to', 'name the primary server in database.url' where pg_is_in_recovery()
union all
select 'fault', 'database.read_only', 'it is read-only: default_transaction_read_only is on',
  case s.source when 'user' then format('alter role %I reset default_transaction_read_only;', current_user)
    when 'database' then format('alter database %I reset default_transaction_read_only;', current_database())
    when 'database user' then format('alter role %I in database %I reset default_transaction_read_only;', current_user, current_database())
    else 'alter system reset default_transaction_read_only; select pg_reload_conf();' end
from pg_settings s where s.name = 'default_transaction_read_only' and s.setting = 'on' and $1::jsonb is not null
