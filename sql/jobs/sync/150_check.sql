-- What `worker check` says of the sync manager, where it is installed.

create or replace function sync.check_types() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select 'fault', format('the job type %s is %s', wanted.name, case when t.name is null then 'not declared'
                       else 'declared without unique_key = "sync:{user_id}" and unique_while = "active"' end),
       'declare it as docs/systems/sync.md does, and run `worker migrate` or start the daemon'
  from (values ('sync', 'sync:{user_id}'), ('sync_detect', null), ('sync_alert', null)) as wanted (name, unique_key)
  left join worker.job_type as t on t.name = wanted.name
 where t.name is null
    or (wanted.unique_key is not null and (t.unique_key, t.unique_while) is distinct from (wanted.unique_key, 'active'))
union all
select 'warning', 'syncs are paused', 'worker resume sync' from worker.job_type as t where t.name = 'sync' and t.paused
union all
select 'warning', 'nobody is told of syncs that give up', 'then_failed = ["sync_alert"] in [job.sync]'
  from worker.job_type as t where t.name = 'sync' and not 'sync_alert' = any (t.then_failed)
$$;
comment on function sync.check_types() is 'Which job types of the sync manager are not declared as they must be, or are switched off.';

create or replace function sync.check_rights() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select 'fault', format('row-level security of sync.%s is off', c.relname), 'apply sql/jobs/sync/*.sql again'
  from pg_class as c
 where c.relnamespace = 'sync'::regnamespace and c.relkind = 'r' and c.relname <> 'error_codes' and not c.relrowsecurity
union all
select 'fault', format('%s, who owns the functions, is no member of %s', p.proowner::regrole, wanted.role),
       format('grant %s to %s', wanted.role, p.proowner::regrole)
  from pg_proc as p
 cross join unnest(array['worker_enqueue', 'worker_operate']) as wanted (role)
 where p.pronamespace = 'sync'::regnamespace and p.proname = 'start'
   and not pg_has_role(p.proowner, wanted.role, 'usage')
$$;
comment on function sync.check_rights() is 'What is missing of the rights that the sync manager stands on.';

create or replace function sync.check_work() returns table (level text, said text, cure text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select 'warning', format('%s syncs gave up within a day, %s', count(*), string_agg(distinct a.code, ', ')),
       'select * from sync.alerts order by raised_at desc'
  from sync.alerts as a where a.raised_at > worker.now() - interval '24 hours' having count(*) > 0
union all
select 'warning', format('of the syncs of a day %s %% were completed', h.success_rate), 'docs/systems/sync.md, troubleshooting'
  from sync.health() as h where h.status in ('degraded', 'unhealthy')
union all
select 'warning', format('%s users have to connect again', count(*)),
       'their tokens were rejected: select user_id, provider from sync.provider_accounts where rejected_at is not null'
  from sync.provider_accounts as p where p.rejected_at is not null having count(*) > 0
union all
select 'warning', format('%s syncs are due for more than 5 minutes', count(*)), 'worker explain ID'
  from worker.job_queue as j
 where j.job_type in ('sync', 'sync_detect') and j.queued and j.scheduled_at < worker.now() - interval '5 minutes'
having count(*) > 0
$$;
comment on function sync.check_work() is 'What waits for a person: syncs that gave up, tokens that count no more, syncs that are late.';

create or replace function sync.check() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
with found (level, said, cure) as (
    select * from sync.check_types() union all select * from sync.check_rights() union all select * from sync.check_work())
select 'ok', 'installed: types and rights are there', null
 where not exists (select from found as f where f.level = 'fault')
union all
select * from found
$$;
comment on function sync.check() is 'What `worker check` says of the sync manager: level (ok, warning, fault), what was found, and its cure.';
