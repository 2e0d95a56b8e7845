-- Who may do what. Users (worker_tenant) read what is theirs, applications (worker_enqueue) write what people enter, and
-- what the worker writes is written by its functions alone.

grant usage on schema auto_sync to worker_run, worker_enqueue, worker_tenant, worker_operate, worker_read;

grant select on all tables in schema auto_sync to worker_read;
grant select, insert, update, delete on auto_sync.profiles, auto_sync.contacts, auto_sync.crews, auto_sync.crew_members,
    auto_sync.auto_syncs, auto_sync.auto_sync_options, auto_sync.auto_sync_responses, auto_sync.auto_sync_messages,
    auto_sync.message_thread, auto_sync.conversation_state to worker_enqueue;
grant select on auto_sync.outbox, auto_sync.cycles, auto_sync.timing, auto_sync.job_queue, auto_sync.doubtful to worker_enqueue;
grant select on auto_sync.auto_syncs, auto_sync.auto_sync_options, auto_sync.auto_sync_responses,
    auto_sync.auto_sync_messages, auto_sync.outbox, auto_sync.contacts, auto_sync.job_queue, auto_sync.doubtful to worker_tenant;
grant update on auto_sync.timing to worker_operate;

do $$
declare
    relation regclass;
    function regprocedure;
begin
    for relation in select c.oid from pg_class c where c.relnamespace = 'auto_sync'::regnamespace and c.relkind = 'r' loop
        execute format('alter table %s enable row level security', relation);
        execute format('drop policy if exists everything on %s', relation);
        execute format('create policy everything on %s to worker_enqueue, worker_read, worker_operate using (true) with check (true)', relation);
    end loop;
    -- Functions that write run with their owner's rights: nobody may call them but the daemon.
    for function in select p.oid from pg_proc p where p.pronamespace = 'auto_sync'::regnamespace loop
        execute format('revoke all on function %s from public', function);
    end loop;
end
$$;

drop policy if exists own on auto_sync.auto_syncs;
create policy own on auto_sync.auto_syncs for select to worker_tenant using (organizer_id = (select auto_sync.me()));
drop policy if exists own on auto_sync.contacts;
create policy own on auto_sync.contacts for select to worker_tenant using (owner_id = (select auto_sync.me()));

do $$
declare
    relation text;
begin
    -- Through the policy of auto_syncs: what belongs to a sync is seen by whoever sees the sync.
    foreach relation in array '{auto_sync_options,auto_sync_responses,auto_sync_messages,outbox}'::text[] loop
        execute format('drop policy if exists own on auto_sync.%I', relation);
        execute format('create policy own on auto_sync.%I for select to worker_tenant '
                       'using (exists (select from auto_sync.auto_syncs s where s.id = auto_sync_id))', relation);
    end loop;
end
$$;

grant execute on function auto_sync.me() to public;
grant execute on function auto_sync.begin_reminder(uuid, bigint), auto_sync.conclude_reminder(uuid, integer),
    auto_sync.pause(uuid, bigint), auto_sync.end_check(uuid, bigint), auto_sync.next_due(uuid, text), auto_sync.mend(),
    auto_sync.next_message(uuid, text, integer, bigint, bigint), auto_sync.in_doubt(uuid, text, integer, bigint),
    auto_sync.note_message(bigint, text, bigint, text, text) to worker_run;
grant execute on function auto_sync.use_profile(text), auto_sync.timings() to worker_operate;
grant execute on function auto_sync.check(), auto_sync.check_types(), auto_sync.check_triggers(), auto_sync.check_rights(),
    auto_sync.check_work() to worker_read;
