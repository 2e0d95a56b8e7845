-- What `worker check` says of game sync, where it is installed.

create or replace function games.check() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
with declared as (
    select t.* from worker.job_type as t where t.name = 'sync_games'
), found (level, said, cure) as (
    select 'fault', 'the job type sync_games is not declared', 'declare it as docs/systems/games.md does'
     where not exists (select from declared)
    union all
    select 'fault', 'two syncs of one user and platform could be active at once',
           'unique_key = "{platform}" and unique_while = "active" in [job.sync_games]'
      from declared as t where (t.unique_key, t.unique_while) is distinct from ('{platform}', 'active')
    union all
    select 'fault', format('row-level security of games.%s is off', c.relname), 'apply sql/jobs/games/*.sql again'
      from pg_class as c where c.relnamespace = 'games'::regnamespace and c.relkind = 'r' and not c.relrowsecurity
    union all
    select 'fault', format('%s, who owns the functions, is no member of worker_enqueue', p.proowner::regrole),
           format('grant worker_enqueue to %s', p.proowner::regrole)
      from pg_proc as p
     where p.oid = 'games.start(uuid, text, integer, timestamptz, timestamptz, jsonb)'::regprocedure
       and not pg_has_role(p.proowner, 'worker_enqueue', 'usage')
    union all
    select 'warning', 'transitions of syncs are not audited', 'audit = true in [job.sync_games]'
      from declared as t where not t.audit
    union all
    select 'warning', 'syncs are paused', 'worker resume sync_games' from declared as t where t.paused
    union all
    select 'warning', format('%s syncs show no progress for 2 hours', count(*)), 'select * from games.stuck()'
      from games.stuck() having count(*) > 0
)
select 'ok', 'installed: type, index and rights are there', null
 where not exists (select from found as f where f.level = 'fault')
union all
select * from found
$$;
comment on function games.check() is 'What `worker check` says of game sync: level (ok, warning, fault), what was found, and its cure.';
