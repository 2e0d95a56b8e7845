-- Systems that say themselves how they are: a function check() in the schema of each, with these three columns.
select n.nspname as system, (worker.step_call(n.nspname || '.check', '{}')).call
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.proname = 'check' and p.pronargs = 0 and p.proretset and p.proargnames = '{level,said,cure}' and n.nspname <> 'worker'
  -- Of somebody who may own the queue's objects: one that another made would run here with the rights of whoever asks.
  and pg_has_role(p.proowner, 'worker_owner', 'member')
  and has_function_privilege(p.oid, 'execute') and has_schema_privilege(n.oid, 'usage')
order by n.nspname
