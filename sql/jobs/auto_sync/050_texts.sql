-- What is said. The texts are here and nowhere else; each but the thread's is one SMS of at most 1,600 characters.

create or replace function auto_sync.local_time(at timestamptz, zone text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return to_char(at at time zone zone, 'Dy DD Mon HH24:MI');
exception when invalid_parameter_value then
    return to_char(at at time zone 'UTC', 'Dy DD Mon HH24:MI "UTC"');
end
$$;
comment on function auto_sync.local_time(timestamptz, text) is 'A time as people there read it; in UTC when nobody knows the zone.';

create or replace function auto_sync.choices(sync uuid) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select string_agg(format('%s) %s', o.idx, auto_sync.local_time(o.start_time, o.timezone)), ', ' order by o.idx)
  from auto_sync.auto_sync_options o where o.auto_sync_id = sync
$$;
comment on function auto_sync.choices(uuid) is 'The options of a sync in one line, or null when it has none.';

create or replace function auto_sync.reminder_text(sync auto_sync.auto_syncs, contact text, reference text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select format('Hi %s, a reminder from %s: when do you have time for %s%s? %s. Answer with the numbers, or N for none. (%s)',
              left(contact, 60), left((select p.name from auto_sync.profiles p where p.id = sync.organizer_id), 60),
              left(sync.event_name, 100), ' at ' || left(sync.event_location, 100), auto_sync.choices(sync.id), reference)
$$;
comment on function auto_sync.reminder_text(auto_sync.auto_syncs, text, text) is 'What an invitee who has not answered gets; the reference is what the provider is asked by.';

create or replace function auto_sync.notice_text(sync auto_sync.auto_syncs, counts jsonb, reference text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select format('Reminder for %s: sent to %s of the %s who have not answered%s%s%s. %s of %s have answered. (%s)',
              left(sync.event_name, 100), counts ->> 'sent', (counts ->> 'asked')::integer,
              ', ' || nullif((counts ->> 'failed')::integer, 0) || ' failed',
              ', ' || nullif((counts ->> 'unknown')::integer, 0) || ' in doubt',
              ', ' || nullif((counts ->> 'skipped')::integer, 0) || ' left out',
              counts ->> 'responded', counts ->> 'total', reference)
$$;
comment on function auto_sync.notice_text(auto_sync.auto_syncs, jsonb, text) is 'What the organizer hears after a reminder: how many really got it.';

create or replace function auto_sync.summary_text(sync auto_sync.auto_syncs, reference text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
select format('%s is paused: %s of %s have answered, %s available, %s not available, %s no answer. '
              'Answer R to remind the others and go on, or S to stop. (%s)',
              left(sync.event_name, 100), count(r.contact_id), count(*),
              count(*) filter (where r.response_type = 'available'),
              count(*) filter (where r.response_type = 'not_available'),
              count(*) filter (where r.contact_id is null), reference)
  from auto_sync.crew_members m
  left join auto_sync.auto_sync_responses r on r.auto_sync_id = sync.id and r.contact_id = m.contact_id
 where m.crew_id = sync.crew_id
$$;
comment on function auto_sync.summary_text(auto_sync.auto_syncs, text) is 'What the organizer hears when a sync is paused.';

create or replace function auto_sync.tell_organizer(sync auto_sync.auto_syncs, kind text, cycle integer, body text, reference text)
returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    insert into auto_sync.outbox (auto_sync_id, cycle, kind, profile_id, channel, phone, body, reference, status, error)
    select sync.id, tell_organizer.cycle, tell_organizer.kind, p.id,
           case when p.is_host then 'thread' else 'sms' end, p.phone, tell_organizer.body, tell_organizer.reference,
           case when p.is_host or p.phone is not null then 'queued' else 'skipped' end,
           case when not p.is_host and p.phone is null then 'no phone number' end
      from auto_sync.profiles p where p.id = sync.organizer_id
        on conflict do nothing;
    perform auto_sync.deliver_to_threads(sync.id, tell_organizer.kind, tell_organizer.cycle);
end
$$;
comment on function auto_sync.tell_organizer(auto_sync.auto_syncs, text, integer, text, text) is
    'Writes down what the organizer is to hear: by SMS, or a host in the thread of the application.';
