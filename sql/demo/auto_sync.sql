-- For the demo "auto-sync": a crew to be asked, and what its scenes ask about it. Needs sql/jobs/auto_sync.
--
-- Applied once, to a database of the demo's own; drop schema demo cascade takes it away.

create schema if not exists demo;
comment on schema demo is 'What the demos do to the shipped systems and ask of them; nothing that those or the queue need.';

create or replace function demo.number(n integer) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$ select '+1415555' || to_char(n, 'FM0000') $$;
comment on function demo.number(integer) is 'The phone number of the n-th invitee; 9000 is the organizer''s.';

create or replace function demo.begin_sync(event text, organizer text, members integer) returns uuid
language sql set search_path = pg_catalog, pg_temp
as $$
with who as (
    insert into auto_sync.profiles (name, phone) values (organizer, demo.number(9000)) returning id
), crew as (
    insert into auto_sync.crews (organizer_id, name) select who.id, 'the crew' from who returning id
), contact as (
    insert into auto_sync.contacts (owner_id, name, phone)
    select who.id, 'Member ' || n, demo.number(n) from who, generate_series(1, members) as n returning id
), member as (
    insert into auto_sync.crew_members (crew_id, contact_id) select crew.id, contact.id from crew, contact
), sync as (
    insert into auto_sync.auto_syncs (organizer_id, crew_id, event_name, event_location, started_at)
    select who.id, crew.id, event, 'the harbour', worker.now() from who, crew returning id
), option as (
    insert into auto_sync.auto_sync_options (auto_sync_id, idx, start_time, end_time)
    select sync.id, day, worker.now() + day * interval '1 day', worker.now() + day * interval '1 day' + interval '2 hours'
      from sync, generate_series(1, 2) as day
)
select id from sync
$$;
comment on function demo.begin_sync(text, text, integer) is 'An organizer with a crew of so many, and a running sync with two options.';

create or replace function demo.answer(sync uuid, n integer, said text) returns void
language sql set search_path = pg_catalog, pg_temp
as $$
insert into auto_sync.auto_sync_responses (auto_sync_id, contact_id, response_type, responded_at)
select s.id, c.id, said, worker.now()
  from auto_sync.auto_syncs s
  join auto_sync.crew_members m using (crew_id)
  join auto_sync.contacts c on c.id = m.contact_id
 where s.id = sync and c.phone = demo.number(n)
$$;
comment on function demo.answer(uuid, integer, text) is 'A member of the crew answers: available or not_available.';

create or replace function demo.due(sync uuid) returns table (job_type text, minutes numeric)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select j.job_type, round(extract(epoch from j.scheduled_at - worker.now()) / 60)
  from auto_sync.job_queue j where j.sync_id = sync and j.status = 'pending' order by j.scheduled_at
$$;
comment on function demo.due(uuid) is 'What is to come for a sync, and in how many minutes.';

create or replace function demo.last_result(sync uuid, job_type text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select j.result from worker.jobs j
 where j.job_type = last_result.job_type and j.payload ->> 'sync_id' = sync::text and j.status = 'completed'
 order by j.id desc limit 1
$$;
comment on function demo.last_result(uuid, text) is 'What the last completed job of a type said for a sync.';

create or replace function demo.outbox(sync uuid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select coalesce(jsonb_object_agg(status, number), '{}')
  from (select o.status, count(*) as number from auto_sync.outbox o
         where o.auto_sync_id = sync and o.kind = 'reminder' group by o.status) by_status
$$;
comment on function demo.outbox(uuid) is 'Reminders of a sync by status.';

create or replace function demo.said(sync uuid, kind text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select o.body from auto_sync.outbox o where o.auto_sync_id = sync and o.kind = said.kind order by o.id desc limit 1
$$;
comment on function demo.said(uuid, text) is 'The last text of a kind that was written for a sync.';

create or replace function demo.pass_time(by interval) returns timestamptz
language sql set search_path = pg_catalog, pg_temp
as $$
select worker.set_clock(shift => worker.now() - statement_timestamp() + by)
$$;
comment on function demo.pass_time(interval) is 'Moves the queue''s clock on.';
