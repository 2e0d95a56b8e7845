-- What `worker check` says of the auto sync: whether it is installed whole, and what waits for a person.

create or replace function auto_sync.check_types() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select 'fault',
       format('the job type %s is %s', wanted.name,
              case when t.name is null then 'not declared' else 'declared without unique_key = "{sync_id}" and unique_while = "active"' end),
       'declare it as docs/systems/auto-sync.md does, and run `worker migrate` or start the daemon'
  from unnest(array['reminder_24h', 'pause_check_48h', 'auto_end_check']) as wanted (name)
  left join worker.job_type t on t.name = wanted.name
 where (t.unique_key, t.unique_while) is distinct from ('{sync_id}', 'active')
$$;
comment on function auto_sync.check_types() is 'Which job types of the auto sync are not declared as they must be.';

create or replace function auto_sync.check_triggers() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select 'fault', format('the trigger %s is %s', wanted.name, case when t.oid is null then 'not there' else 'disabled' end),
       case when t.oid is null then 'apply sql/jobs/auto_sync/*.sql again'
            else format('alter table %s enable trigger %s', wanted.relation, wanted.name) end
  from (values ('on_auto_sync_status', 'auto_sync.auto_syncs'), ('on_auto_sync_created', 'auto_sync.auto_syncs'),
               ('on_auto_sync_started', 'auto_sync.auto_syncs'), ('on_auto_sync_ended', 'auto_sync.auto_syncs'),
               ('on_auto_sync_deleted', 'auto_sync.auto_syncs'), ('on_auto_sync_option', 'auto_sync.auto_sync_options')
       ) as wanted (name, relation)
  left join pg_trigger t on t.tgname = wanted.name and t.tgrelid = to_regclass(wanted.relation)
 where coalesce(t.tgenabled, 'D') not in ('O', 'A')
$$;
comment on function auto_sync.check_triggers() is 'Which triggers of the auto sync are missing or disabled.';

create or replace function auto_sync.check_rights() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select 'fault', format('row-level security of auto_sync.%s is off', c.relname),
       format('alter table auto_sync.%I enable row level security', c.relname)
  from pg_class c
 where c.relnamespace = 'auto_sync'::regnamespace and c.relkind = 'r' and not c.relrowsecurity
union all
select 'fault', format('%s, who owns the functions, is no member of %s', p.proowner::regrole, wanted.role),
       format('grant %s to %s', wanted.role, p.proowner::regrole)
  from pg_proc p
 cross join unnest(array['worker_enqueue', 'worker_operate']) as wanted (role)
 where p.oid = 'auto_sync.schedule_first_reminder()'::regprocedure
   and not pg_has_role(p.proowner, wanted.role, 'usage')
union all
select 'fault', 'there is no unique index that keeps a second job of a sync and type out', 'run `worker migrate`'
 where not exists (select from pg_indexes i where i.schemaname = 'worker' and i.indexname = 'job_queue_held')
$$;
comment on function auto_sync.check_rights() is 'What is missing of the rights and of the index that the auto sync stands on.';

create or replace function auto_sync.check_work() returns table (level text, said text, cure text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select 'warning', format('%s messages may or may not have arrived', count(*)),
       'select * from auto_sync.doubtful; ask the people, then delete the rows or set them to sent'
  from auto_sync.outbox o where o.status = 'unknown' having count(*) > 0
union all
select 'warning', format('%s messages wait, and no job is there to send them', count(*)),
       'worker retry ID: select id, job_type from worker.jobs where status in (''failed'', ''cancelled'') and job_type <> ''auto_end_check'''
       ' and correlation_id in (select auto_sync_id::text from auto_sync.outbox where status in (''queued'', ''sending''))'
  from auto_sync.outbox o
 where o.status in ('queued', 'sending')
   and not exists (select from auto_sync.live_jobs(o.auto_sync_id) j where j.job_type <> 'auto_end_check')
having count(*) > 0
union all
select 'warning', format('%s jobs are more than 5 minutes late', count(*)), 'is a daemon there that declares them? worker explain ID'
  from worker.job_queue j
 where j.job_type in ('reminder_24h', 'pause_check_48h', 'auto_end_check')
   and j.queued and j.scheduled_at < worker.now() - interval '5 minutes'
having count(*) > 0
union all
select 'info', format('the timings of %s are in force: reminder after %s, pause after %s', t.profile, t.reminder_after, t.pause_after), null
  from auto_sync.timing t where t.in_force
union all
select 'fault', 'no timings are in force', 'select auto_sync.use_profile(''production'')'
 where not exists (select from auto_sync.timing t where t.in_force)
$$;
comment on function auto_sync.check_work() is 'What waits for a person: messages in doubt or left over, jobs that are late; and the timings in force.';

create or replace function auto_sync.check() returns table (level text, said text, cure text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
with found (level, said, cure) as (
    select * from auto_sync.check_triggers() union all select * from auto_sync.check_types()
    union all select * from auto_sync.check_rights() union all select * from auto_sync.check_work())
select 'ok', 'installed: tables, triggers, types, index and rights are there', null
 where not exists (select from found f where f.level = 'fault')
union all
select * from found
$$;
comment on function auto_sync.check() is 'What `worker check` says of the auto sync: level (ok, info, warning, fault), what was found, and its cure.';
