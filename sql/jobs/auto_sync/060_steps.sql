-- What the three job types do in the database, each in one transaction; worker/jobs/auto_sync.py calls them and sends.
--
-- Each begins by looking at the sync as it is now, and answers with an action:
--     send  there are rows of the outbox to be sent      wait  not before `until`
--     skip  there is nothing to do any more, as `note` says      done  nothing is left

create or replace function auto_sync.prepare_reminder(sync auto_sync.auto_syncs, cycle integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    no_choice boolean := auto_sync.choices(sync.id) is null;
begin
    insert into auto_sync.outbox (auto_sync_id, cycle, kind, contact_id, profile_id, channel, phone, body, reference, status, error)
    select sync.id, prepare_reminder.cycle, 'reminder', who.id, who.host_id,
           case when who.host_id is null then 'sms' else 'thread' end, who.phone,
           auto_sync.reminder_text(sync, who.name, own.reference), own.reference,
           case when why.not_sent is null then 'queued' else 'skipped' end, why.not_sent
      from (select c.id, c.name, c.phone, host.id as host_id, row_number() over (partition by c.phone order by c.id) as turn
              from auto_sync.crew_members m
              join auto_sync.contacts c on c.id = m.contact_id
              left join lateral (select p.id from auto_sync.profiles p
                                  where p.is_host and p.phone = c.phone order by p.id limit 1) host on true
             where m.crew_id = sync.crew_id
               and not exists (select from auto_sync.auto_sync_responses r
                                where r.auto_sync_id = sync.id and r.contact_id = c.id)) who
     cross join lateral (select upper(left(md5(concat(who.id, gen_random_uuid())), 8)) as reference) own
     cross join lateral (select case when no_choice then 'the auto sync has no options'
                                     when who.phone is null then 'no phone number'
                                     when who.turn > 1 then 'the same number as another contact' end as not_sent) why
        on conflict do nothing;
    perform auto_sync.deliver_to_threads(sync.id, 'reminder', cycle);
    if exists (select from auto_sync.outbox o where o.auto_sync_id = sync.id and o.cycle = prepare_reminder.cycle
                and o.kind = 'reminder' and o.status = 'sent') then
        update auto_sync.auto_syncs s set last_reminder_sent_at = worker.now() where s.id = sync.id;
    end if;
end
$$;
comment on function auto_sync.prepare_reminder(auto_sync.auto_syncs, integer) is
    'Writes down everybody who has not answered; those who cannot be reached are skipped, with the reason. Hosts are reminded by this already.';

create or replace function auto_sync.begin_reminder(sync uuid, job bigint)
returns table (action text, cycle integer, until timestamptz, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    now_is timestamptz := worker.now();
    timing auto_sync.timing := auto_sync.timings();
    found_sync auto_sync.auto_syncs;
    this auto_sync.cycles;
begin
    select s.* into found_sync from auto_sync.auto_syncs s where s.id = sync for no key update;
    this := auto_sync.current_cycle(sync);
    note := case when found_sync.id is null then 'Auto sync not found'
                 when found_sync.status <> 'running' then 'the auto sync is ' || found_sync.status
                 when this.cycle is null then 'the auto sync began before this was installed'
                 when this.reminder_due is null then 'the organizer has reminded'
                 -- But for the job itself, which has perhaps not told the organizer, nor its own end.
                 when this.reminded_at is not null and this.reminder_job <> job then 'reminded already' end;
    action := case when note is not null then 'skip' when this.reminder_due > now_is then 'wait' else 'send' end;
    cycle := this.cycle;
    until := this.reminder_due;
    if action = 'send' and this.prepared_at is null then
        -- A reminder that comes after the pause was due leaves people as long as one that the organizer sent.
        this.pause_due := case when this.anchored_at + timing.pause_after > now_is then this.anchored_at + timing.pause_after
                               else now_is + timing.pause_after_reminder end;
        update auto_sync.cycles c set prepared_at = now_is, reminder_job = job, pause_due = this.pause_due
         where c.auto_sync_id = sync and c.cycle = this.cycle;
        perform auto_sync.prepare_reminder(found_sync, this.cycle);
        -- Here, and not when all is sent: a reminder that never comes to its end must not keep the sync running for ever.
        perform auto_sync.enqueue_job(sync, 'pause_check_48h', this.pause_due);
    end if;
    return next;
end
$$;
comment on function auto_sync.begin_reminder(uuid, bigint) is
    'What the reminder of a sync is to do now. The first time it writes down whom to remind, and has the pause looked at.';

create or replace function auto_sync.counts(sync uuid, cycle integer) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select jsonb_build_object(
           'total',     (select count(*) from auto_sync.crew_members m where m.crew_id = s.crew_id),
           'responded', (select count(*) from auto_sync.crew_members m
                           join auto_sync.auto_sync_responses r on r.auto_sync_id = s.id and r.contact_id = m.contact_id
                          where m.crew_id = s.crew_id)) || sending.counts
  from auto_sync.auto_syncs s
 cross join lateral (
       select jsonb_build_object(
                  'asked',   count(o.id),
                  'sent',    count(*) filter (where o.status = 'sent'),
                  'failed',  count(*) filter (where o.status = 'failed'),
                  'unknown', count(*) filter (where o.status in ('unknown', 'sending')),
                  'skipped', count(*) filter (where o.status = 'skipped'),
                  'queued',  count(*) filter (where o.status = 'queued')) as counts
         from auto_sync.outbox o
        where o.auto_sync_id = s.id and o.cycle = counts.cycle and o.kind = 'reminder'
          and not (o.status = 'skipped' and exists (select from auto_sync.auto_sync_responses r
                    where r.auto_sync_id = s.id and r.contact_id = o.contact_id))) sending
 where s.id = sync
$$;
comment on function auto_sync.counts(uuid, integer) is
    'How a reminder stands: crew, answers, and the outbox by status. Who answered before being reminded is not counted as asked.';

create or replace function auto_sync.conclude_reminder(sync uuid, cycle integer) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    timing auto_sync.timing := auto_sync.timings();
    now_is timestamptz := worker.now();
    found_sync auto_sync.auto_syncs;
    counted jsonb;
    own text := upper(left(md5(gen_random_uuid()::text), 8));
begin
    select s.* into found_sync from auto_sync.auto_syncs s where s.id = sync for no key update;
    counted := auto_sync.counts(sync, conclude_reminder.cycle);
    if counted is null or (counted ->> 'queued')::integer > 0 then
        return counted;
    end if;
    update auto_sync.cycles c
       set reminded_at = now_is,
           -- A carrier that was away for so long leaves people no less time than a worker that was.
           pause_due = case when c.pause_due > now_is then c.pause_due else now_is + timing.pause_after_reminder end
     where c.auto_sync_id = sync and c.cycle = conclude_reminder.cycle and c.reminded_at is null;
    if found and found_sync.status = 'running' then
        perform auto_sync.tell_organizer(found_sync, 'reminder_notice', conclude_reminder.cycle,
                                         auto_sync.notice_text(found_sync, counted, own), own);
    end if;
    return counted;
end
$$;
comment on function auto_sync.conclude_reminder(uuid, integer) is
    'Nobody is left to be reminded: writes down what the organizer is to hear. Answers with the counts, or null when the sync is gone; where somebody is still queued nothing is written.';

create or replace function auto_sync.live_reminder(sync uuid) returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
as $$ select j.scheduled_at from auto_sync.live_jobs(sync) j where j.job_type = 'reminder_24h' $$;
comment on function auto_sync.live_reminder(uuid) is 'When the live reminder job of a sync is due, or null when there is none.';

create or replace function auto_sync.had_job(sync uuid, job_type text, since timestamptz) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
select exists (select from worker.job_queue j
                where j.job_type = had_job.job_type and j.correlation_id = sync::text and j.created_at >= since)
$$;
comment on function auto_sync.had_job(uuid, text, timestamptz) is 'Whether a sync has had a job of this type since, live or at its end.';

create or replace function auto_sync.pause_time(sync uuid) returns timestamptz
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when c.cycle is null or c.paused_at is not null then null
            -- First the reminder, unless its job has come to its end without it.
            when c.reminder_due is not null and c.reminded_at is null
                 and (auto_sync.live_reminder(sync) is not null
                      or not auto_sync.had_job(sync, 'reminder_24h', c.created_at)) then null
            else coalesce(c.pause_due, c.anchored_at + (auto_sync.timings()).pause_after) end
  from auto_sync.current_cycle(sync) c
$$;
comment on function auto_sync.pause_time(uuid) is 'When a sync is to be paused, or null while its reminder is to come first, and when it was paused.';

create or replace function auto_sync.pause(sync uuid, job bigint)
returns table (action text, cycle integer, until timestamptz, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    found_sync auto_sync.auto_syncs;
    this auto_sync.cycles;
    paused bigint;
    own text := upper(left(md5(gen_random_uuid()::text), 8));
begin
    select s.* into found_sync from auto_sync.auto_syncs s where s.id = sync for no key update;
    this := auto_sync.current_cycle(sync);
    cycle := this.cycle;
    until := coalesce(auto_sync.pause_time(sync), greatest(worker.now(), auto_sync.live_reminder(sync)) + interval '1 minute');
    if found_sync.status = 'paused' and this.paused_at is not null then
        action := 'send';  -- paused by an attempt before this one, which may not have told the organizer
    else
        note := case when found_sync.id is null then 'Auto sync not found'
                     when found_sync.status <> 'running' then 'the auto sync is ' || found_sync.status
                     when this.cycle is null then 'the auto sync began before this was installed' end;
        action := case when note is not null then 'skip' when until <= worker.now() then 'send' else 'wait' end;
    end if;
    if action = 'send' and this.paused_at is null then
        perform set_config('auto_sync.job', job::text, true);
        update auto_sync.auto_syncs s set status = 'paused', paused_at = worker.now() where s.id = sync and s.status = 'running';
        get diagnostics paused = row_count;
        if paused <> 1 then
            raise exception 'auto sync % changed while it was being paused', sync using errcode = '40001';
        end if;
        update auto_sync.cycles c set paused_at = worker.now() where c.auto_sync_id = sync and c.cycle = this.cycle;
        perform auto_sync.tell_organizer(found_sync, 'pause_summary', this.cycle, auto_sync.summary_text(found_sync, own), own);
        insert into auto_sync.conversation_state as c (profile_id, state, auto_sync_id, updated_at)
        values (found_sync.organizer_id, 'auto_sync_paused_menu', sync, worker.now())
            on conflict (profile_id) do update
           set state = excluded.state, auto_sync_id = excluded.auto_sync_id, updated_at = excluded.updated_at;
    end if;
    return next;
end
$$;
comment on function auto_sync.pause(uuid, bigint) is
    'Pauses a sync that is still running and due, once for each cycle, and writes down the summary for its organizer.';

create or replace function auto_sync.end_check(sync uuid, job bigint)
returns table (action text, until timestamptz, note text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    status_now text;
    stopped bigint;
begin
    select s.status into status_now from auto_sync.auto_syncs s where s.id = sync for no key update;
    note := case when status_now is null then 'Auto sync not found'
                 when status_now not in ('running', 'paused') then 'the auto sync is ' || status_now
                 when auto_sync.first_end(sync) is null then 'the auto sync has no options' end;
    until := auto_sync.first_end(sync, worker.now());
    action := case when note is not null then 'skip' when until is not null then 'wait' else 'done' end;
    if action = 'done' then
        perform set_config('auto_sync.job', job::text, true);
        update auto_sync.auto_syncs s set status = 'stopped', stopped_at = worker.now()
         where s.id = sync and s.status in ('running', 'paused');
        get diagnostics stopped = row_count;
        if stopped <> 1 then
            raise exception 'auto sync % changed while it was being stopped', sync using errcode = '40001';
        end if;
    end if;
    return next;
end
$$;
comment on function auto_sync.end_check(uuid, bigint) is
    'Stops a sync whose options are all over; else says when the next of them is.';

create or replace function auto_sync.next_due(sync uuid, job_type text) returns timestamptz
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select case next_due.job_type
           when 'reminder_24h' then case when c.reminded_at is null then c.reminder_due end
           when 'pause_check_48h' then auto_sync.pause_time(sync)
       end
  from auto_sync.auto_syncs s
 cross join lateral auto_sync.current_cycle(s.id) c
 where s.id = sync and s.status = 'running'
$$;
comment on function auto_sync.next_due(uuid, text) is
    'When a job of this type has to come again for a sync that went on while it ran, or null.';

create or replace function auto_sync.mend() returns bigint
language sql security definer set search_path = pg_catalog, pg_temp
as $$
with missing as (
    select s.id as sync, kind.name as job_type,
           case kind.name when 'auto_end_check' then coalesce(auto_sync.first_end(s.id, worker.now()), auto_sync.first_end(s.id))
                          else auto_sync.next_due(s.id, kind.name) end as due
      from auto_sync.auto_syncs s
     cross join lateral auto_sync.current_cycle(s.id) c
     cross join (values ('reminder_24h'), ('pause_check_48h'), ('auto_end_check')) kind (name)
     where s.status in ('running', 'paused') and c.cycle is not null
       and not exists (select from auto_sync.live_jobs(s.id) j where j.job_type = kind.name)
       -- What failed, or what somebody cancelled, is not brought back.
       and not auto_sync.had_job(s.id, kind.name, c.created_at)
)
select count(auto_sync.enqueue_job(sync, job_type, due)) from missing where due is not null
$$;
comment on function auto_sync.mend() is
    'Enqueues what running syncs lack, and answers with how many jobs that were: of one that went on in the moment in which the job of before was at its end, and of one that began while the types were not declared.';
