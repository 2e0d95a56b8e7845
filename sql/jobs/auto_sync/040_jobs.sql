-- Which jobs a sync has: they come and end in the transaction of whoever starts, pauses, ends or deletes it.
--
-- The types are declared in worker.toml with unique_key = "{sync_id}" and unique_while = "active": one live job for each
-- sync and type, whoever asks for a second one. SECURITY DEFINER: who may enter a sync need not be allowed to write to
-- the queue, only the owner of these functions (a member of worker_enqueue and worker_operate).

create or replace function auto_sync.enqueue_job(sync uuid, job_type text, due timestamptz) returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
select worker.enqueue(job_type       => enqueue_job.job_type,
                      payload        => jsonb_build_object('sync_id', sync),
                      scheduled_at   => due,
                      tenant_id      => (auto_sync.current_cycle(sync)).tenant_id,
                      correlation_id => sync::text,
                      source         => 'auto_sync')
$$;
comment on function auto_sync.enqueue_job(uuid, text, timestamptz) is
    'A job of this type for a sync, or the one that lives already.';

create or replace function auto_sync.live_jobs(sync uuid) returns setof worker.job_queue
-- Generic, for a plan made for one key may read all of its type where statistics say that the table is nearly empty.
language sql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as $$
select j from worker.job_queue j
 where j.job_type in ('reminder_24h', 'pause_check_48h', 'auto_end_check') and j.held_key = sync::text
$$;
comment on function auto_sync.live_jobs(uuid) is 'The jobs of a sync that are not at their end, by the unique key that they hold.';

create or replace function auto_sync.end_jobs(sync uuid, reason text, only_pending text[] default null) returns void
language sql set search_path = pg_catalog, pg_temp
as $$
select worker.cancel(j.id, reason)
  from auto_sync.live_jobs(sync) j
 where (only_pending is null or (j.job_type = any (only_pending) and j.status = 'pending'))
   -- A job that ends the sync itself goes on to its own end.
   and j.id::text is distinct from nullif(current_setting('auto_sync.job', true), '')
 order by j.id
$$;
comment on function auto_sync.end_jobs(uuid, text, text[]) is
    'Ends the pending jobs of a sync and asks running ones to end; or the pending ones of some types only.';

create or replace function auto_sync.first_end(sync uuid, after timestamptz default '-infinity') returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
as $$
select min(coalesce(o.end_time, o.start_time)) from auto_sync.auto_sync_options o
 where o.auto_sync_id = sync and coalesce(o.end_time, o.start_time) > after
$$;
comment on function auto_sync.first_end(uuid, timestamptz) is 'When the first option of a sync that ends after an instant ends.';

create or replace function auto_sync.schedule_end(sync uuid) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    due timestamptz := auto_sync.first_end(sync);
begin
    if due is not null and (auto_sync.current_cycle(sync)).cycle is not null
       and exists (select from auto_sync.auto_syncs s where s.id = sync and s.status in ('running', 'paused')) then
        -- One that has looked already keeps its time when it is met, so it makes room for one that is due sooner.
        perform worker.cancel(j.id, 'an option ends sooner')
           from auto_sync.live_jobs(sync) j
          where j.job_type = 'auto_end_check' and j.status = 'pending' and j.started_at is not null and j.scheduled_at > due;
        perform auto_sync.enqueue_job(sync, 'auto_end_check', due);
    end if;
end
$$;
comment on function auto_sync.schedule_end(uuid) is 'Has the end of a sync looked at when its first option is over.';

create or replace function auto_sync.fill_times() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'UPDATE' and new.status = old.status then
        return new;
    end if;
    if new.status = 'running' then
        new.started_at := coalesce(new.started_at, worker.now());
    elsif new.status = 'paused' and (new.paused_at is null or (tg_op = 'UPDATE' and new.paused_at = old.paused_at)) then
        new.paused_at := worker.now();
    elsif new.status = 'completed' and (new.completed_at is null or (tg_op = 'UPDATE' and new.completed_at = old.completed_at)) then
        new.completed_at := worker.now();
    elsif new.status = 'stopped' and (new.stopped_at is null or (tg_op = 'UPDATE' and new.stopped_at = old.stopped_at)) then
        new.stopped_at := worker.now();
    end if;
    return new;
end
$$;
comment on function auto_sync.fill_times() is 'Trigger: when a sync came into its status, where whoever changed it does not say.';

create or replace function auto_sync.schedule_first_reminder() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    timing auto_sync.timing := auto_sync.timings();
    past auto_sync.cycles := auto_sync.current_cycle(new.id);
    next auto_sync.cycles;
    own_reminder boolean := false;
begin
    if timing.profile is null then
        raise exception 'no timings are in force' using hint = 'select auto_sync.use_profile(''production'')';
    end if;
    next.auto_sync_id := new.id;
    next.cycle := coalesce(past.cycle, 0) + 1;
    next.tenant_id := worker.tenant_of(current_user);
    if tg_op = 'UPDATE' and past.cycle is not null then
        own_reminder := new.last_reminder_sent_at >= coalesce(old.paused_at, '-infinity')
                        and (old.paused_at is not null
                             or new.last_reminder_sent_at is distinct from old.last_reminder_sent_at);
    end if;
    if own_reminder then
        next.anchored_at := new.last_reminder_sent_at;
        next.pause_due := next.anchored_at + timing.pause_after_reminder;
    else
        next.anchored_at := case when past.cycle is null or new.started_at is distinct from old.started_at
                                 then new.started_at else worker.now() end;
        next.reminder_due := next.anchored_at + timing.reminder_after;
    end if;
    insert into auto_sync.cycles (auto_sync_id, cycle, anchored_at, reminder_due, pause_due, tenant_id)
    values (next.auto_sync_id, next.cycle, next.anchored_at, next.reminder_due, next.pause_due, next.tenant_id);
    if own_reminder then
        perform auto_sync.enqueue_job(new.id, 'pause_check_48h', next.pause_due);
    else
        perform auto_sync.enqueue_job(new.id, 'reminder_24h', next.reminder_due);
    end if;
    perform auto_sync.schedule_end(new.id);
    return null;
end
$$;
comment on function auto_sync.schedule_first_reminder() is
    'Trigger: a sync that starts or goes on is reminded, or, when its organizer has just done so, paused in time.';

create or replace function auto_sync.end_with_sync() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'DELETE' then
        perform auto_sync.end_jobs(old.id, 'auto sync deleted');
    elsif new.status = 'paused' then
        perform auto_sync.end_jobs(new.id, 'auto sync paused', '{reminder_24h,pause_check_48h}');
    else
        perform auto_sync.end_jobs(new.id, 'auto sync ' || new.status);
    end if;
    if tg_op = 'UPDATE' then
        -- A job that is asked to end does not come back to say so of those whom it had not sent for yet.
        update auto_sync.outbox o
           set status = 'skipped', finished_at = worker.now(), error = 'the auto sync is ' || new.status
         where o.auto_sync_id = new.id and o.kind = 'reminder' and o.status = 'queued';
    end if;
    return null;
end
$$;
comment on function auto_sync.end_with_sync() is
    'Trigger: the jobs of a sync that is completed, stopped or deleted end with it; a pause ends those that wait to remind and to pause. Nobody is reminded of it any more.';

create or replace function auto_sync.option_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform auto_sync.schedule_end(coalesce(new.auto_sync_id, old.auto_sync_id));
    return null;
end
$$;
comment on function auto_sync.option_changed() is 'Trigger: another option may be the first to end.';

create or replace trigger on_auto_sync_status before insert or update of status on auto_sync.auto_syncs
    for each row execute function auto_sync.fill_times();
create or replace trigger on_auto_sync_created after insert on auto_sync.auto_syncs
    for each row when (new.status = 'running') execute function auto_sync.schedule_first_reminder();
create or replace trigger on_auto_sync_started after update of status on auto_sync.auto_syncs
    for each row when (new.status = 'running' and old.status <> 'running') execute function auto_sync.schedule_first_reminder();
create or replace trigger on_auto_sync_ended after update of status on auto_sync.auto_syncs
    for each row when (new.status <> 'running' and old.status <> new.status) execute function auto_sync.end_with_sync();
create or replace trigger on_auto_sync_deleted after delete on auto_sync.auto_syncs
    for each row execute function auto_sync.end_with_sync();
create or replace trigger on_auto_sync_option after insert or update or delete on auto_sync.auto_sync_options
    for each row execute function auto_sync.option_changed();
