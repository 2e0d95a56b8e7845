-- Takes the auto sync's jobs away and leaves every table of yours as it is: triggers, functions, outbox and cycles go,
-- auto_syncs and what belongs to it stay.
--
--     psql -1 -v ON_ERROR_STOP=1 -f sql/optional/auto_sync_uninstall.sql
--
-- Take the job types out of worker.toml as well. Everything, tables too: drop schema auto_sync cascade;

-- What was to come would find nothing to call.
select worker.cancel(j.id, 'the auto sync was uninstalled')
  from worker.job_queue j
 where j.job_type in ('reminder_24h', 'pause_check_48h', 'auto_end_check') and j.status in ('pending', 'running');

drop trigger if exists on_auto_sync_created on auto_sync.auto_syncs;
drop trigger if exists on_auto_sync_started on auto_sync.auto_syncs;
drop trigger if exists on_auto_sync_ended on auto_sync.auto_syncs;
drop trigger if exists on_auto_sync_deleted on auto_sync.auto_syncs;
drop trigger if exists on_auto_sync_status on auto_sync.auto_syncs;
drop trigger if exists on_auto_sync_option on auto_sync.auto_sync_options;

drop view if exists auto_sync.job_queue, auto_sync.doubtful;

do $$
declare
    function regprocedure;
begin
    for function in
        -- The policies of the tables that stay ask for me().
        select p.oid from pg_proc p where p.pronamespace = 'auto_sync'::regnamespace and p.proname <> 'me'
    loop
        execute format('drop function %s cascade', function);
    end loop;
end
$$;

drop table if exists auto_sync.outbox, auto_sync.cycles, auto_sync.timing;
