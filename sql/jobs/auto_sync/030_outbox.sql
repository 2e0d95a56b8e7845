-- What is sent: a row for each recipient, written before anything is sent, so that nobody gets two and nobody is
-- forgotten. queued → sending → sent | failed | unknown; queued → skipped.
--
-- `sending` is committed before the provider is asked. Whoever finds such a row that is not his own, or has no answer to
-- go by, asks the provider by the row's reference; where it cannot tell, the row is `unknown`, and is never sent again
-- by itself.

create table if not exists auto_sync.outbox (
    id           bigint      generated always as identity primary key,
    auto_sync_id uuid        not null references auto_sync.auto_syncs on delete cascade,
    cycle        integer     not null,
    kind         text        not null check (kind in ('reminder', 'reminder_notice', 'pause_summary')),
    contact_id   uuid,
    profile_id   uuid,
    channel      text        not null check (channel in ('sms', 'thread')),
    phone        text,
    body         text        not null,
    reference    text        not null default upper(left(md5(gen_random_uuid()::text), 8)),
    status       text        not null default 'queued'
                 check (status in ('queued', 'sending', 'sent', 'failed', 'unknown', 'skipped')),
    provider_id  text,
    error        text,
    job_id       bigint,
    claim        bigint,
    created_at   timestamptz not null default worker.now(),
    sending_at   timestamptz,
    finished_at  timestamptz,
    check (num_nonnulls(contact_id, profile_id) >= 1)
);
comment on table  auto_sync.outbox             is 'One row for each recipient, written before sending: at most one message each, and none silently lost.';
comment on column auto_sync.outbox.contact_id  is 'The invitee; no foreign key, for what was sent stays to be read when a contact is deleted.';
comment on column auto_sync.outbox.profile_id  is 'The organizer, or the host that the invitee is.';
comment on column auto_sync.outbox.reference   is 'Our own; it stands in the text, and the provider is asked by it.';
comment on column auto_sync.outbox.status      is 'unknown: it may have arrived, nobody can tell, and it is not sent again.';
comment on column auto_sync.outbox.claim       is 'Of the attempt that sends it.';
create unique index if not exists outbox_once on auto_sync.outbox (auto_sync_id, contact_id, kind, cycle) nulls not distinct;
create index if not exists outbox_open on auto_sync.outbox (auto_sync_id, kind, cycle, id) where status in ('queued', 'sending');
create index if not exists outbox_doubt on auto_sync.outbox (sending_at) where status in ('sending', 'unknown');

create or replace function auto_sync.deliver_to_threads(sync uuid, kind text, cycle integer) returns void
language sql set search_path = pg_catalog, pg_temp
as $$
with delivered as (
    update auto_sync.outbox o
       set status = 'sent', sending_at = worker.now(), finished_at = worker.now()
     where o.auto_sync_id = sync and o.kind = deliver_to_threads.kind and o.cycle = deliver_to_threads.cycle
       and o.channel = 'thread' and o.status = 'queued'
    returning o.*
), told as (
    insert into auto_sync.message_thread (profile_id, auto_sync_id, body, created_at)
    select d.profile_id, d.auto_sync_id, d.body, worker.now() from delivered d
)
insert into auto_sync.auto_sync_messages (auto_sync_id, contact_id, message_type, sent_at)
select d.auto_sync_id, d.contact_id, 'reminder', worker.now() from delivered d
  join auto_sync.contacts c on c.id = d.contact_id
 where d.kind = 'reminder'
$$;
comment on function auto_sync.deliver_to_threads(uuid, text, integer) is
    'Delivers what goes to threads of the application: in the caller''s transaction, so exactly once.';

create or replace function auto_sync.next_message(sync uuid, kind text, cycle integer, job bigint, claim bigint)
returns table (id bigint, phone text, body text, reference text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    status_now text;
begin
    -- The lock keeps a sync that is ended at this moment from being sent for after its end.
    select s.status into status_now from auto_sync.auto_syncs s where s.id = sync for share;
    if next_message.kind = 'reminder' then
        update auto_sync.outbox o
           set status = 'skipped', finished_at = worker.now(),
               error = case when status_now <> 'running' then 'the auto sync is ' || status_now else 'answered meanwhile' end
         where o.auto_sync_id = sync and o.kind = next_message.kind and o.cycle = next_message.cycle and o.status = 'queued'
           and (status_now <> 'running' or exists (select from auto_sync.auto_sync_responses r
                 where r.auto_sync_id = sync and r.contact_id = o.contact_id));
    end if;
    return query
    update auto_sync.outbox o
       set status = 'sending', sending_at = worker.now(), job_id = job, claim = next_message.claim, error = null
     where o.id = (select q.id from auto_sync.outbox q
                    where q.auto_sync_id = sync and q.kind = next_message.kind and q.cycle = next_message.cycle
                      and q.status = 'queued'
                    order by q.id limit 1 for update skip locked)
       -- Whoever lost the job sends nothing more.
       and exists (select from worker.job_queue j
                    where j.id = job and j.claim = next_message.claim and j.status = 'running'
                      and j.cancel_requested_at is null)
    returning o.id, o.phone, o.body, o.reference;
end
$$;
comment on function auto_sync.next_message(uuid, text, integer, bigint, bigint) is
    'Takes the next row of the outbox in hand: it is `sending` from now on, and the caller sends it after the commit. Rows that need not be sent any more are skipped.';

create or replace function auto_sync.in_doubt(sync uuid, kind text, cycle integer, claim bigint)
returns table (id bigint, phone text, body text, reference text, unknown boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select o.id, o.phone, o.body, o.reference, o.status = 'unknown'
  from auto_sync.outbox o
 where o.auto_sync_id = sync and o.kind = in_doubt.kind and o.cycle = in_doubt.cycle
   and (o.status = 'unknown' or (o.status = 'sending' and o.claim <> in_doubt.claim))
 order by o.id
$$;
comment on function auto_sync.in_doubt(uuid, text, integer, bigint) is
    'Rows that an attempt before this one left in `sending`, and unknown ones: they may have been sent, and the provider may know by now.';

create or replace function auto_sync.note_message(
    message bigint, status text, claim bigint, provider_id text default null, error text default null) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    noted auto_sync.outbox;
begin
    if note_message.status not in ('queued', 'sent', 'failed', 'unknown') then
        raise exception 'a message is never noted as %', note_message.status using errcode = 'check_violation';
    end if;
    update auto_sync.outbox o
       set status = note_message.status, provider_id = note_message.provider_id, error = left(note_message.error, 500),
           finished_at = case when note_message.status <> 'queued' then worker.now() end
     where o.id = message
       -- Only its sender knows that it was not taken, and may yet hear that it was.
       and case note_message.status
               when 'sent' then o.status in ('sending', 'unknown')
               when 'failed' then o.status in ('sending', 'unknown')
               when 'unknown' then o.status = 'sending'
               else o.status = 'sending' and o.claim = note_message.claim end
    returning o.* into noted;
    if noted.kind = 'reminder' and noted.status = 'sent' then
        update auto_sync.auto_syncs s set last_reminder_sent_at = worker.now() where s.id = noted.auto_sync_id;
        insert into auto_sync.auto_sync_messages (auto_sync_id, contact_id, message_type, sent_at)
        select noted.auto_sync_id, c.id, 'reminder', worker.now()
          from auto_sync.contacts c where c.id = noted.contact_id;
    end if;
    return noted.id is not null;
end
$$;
comment on function auto_sync.note_message(bigint, text, bigint, text, text) is
    'Notes what came of a row in `sending`: sent, failed (refused for good), unknown, or queued again by its own sender, who knows that it was not taken. False when the row is not in that state any more.';
