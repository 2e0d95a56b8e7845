-- The bell behind a gate: a sequence holds the second until which somebody may be asleep; the trigger's WHEN reads it.
-- Reading a sequence is one call in C, without a query and outside of snapshots; SELECT on it is all that it needs.
create sequence worker.bell;
grant select on sequence worker.bell to public;

create unlogged table worker.asleep (
    process bigint primary key,
    since   timestamptz not null default clock_timestamp(),
    due     timestamptz not null,   -- it wakes by itself then
    until   timestamptz not null    -- a mark older than this is dead
) with (fillfactor = 10);

create function worker.ring() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_notify('worker', a.process::text)
       from worker.asleep a
      where a.until > clock_timestamp() and a.due >= (select min(n.scheduled_at) from n where n.queued)
      order by a.since desc
      limit 1;
    return null;
end $$;

create trigger ring after insert on worker.job_queue
    referencing new table as n for each statement
    when (pg_sequence_last_value('worker.bell') >= date_part('epoch', clock_timestamp()))
    execute function worker.ring();
