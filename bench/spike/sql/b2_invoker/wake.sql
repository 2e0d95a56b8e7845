-- The bell without SECURITY DEFINER and SET: where its cost lies. Enqueuers would need SELECT on the marks.
create unlogged table worker.asleep (
    process bigint primary key,
    since   timestamptz not null default clock_timestamp(),
    due     timestamptz not null,   -- it wakes by itself then
    until   timestamptz not null    -- a mark older than this is dead
) with (fillfactor = 10);

create function worker.ring() returns trigger language plpgsql as $$
begin
    perform pg_notify('worker', a.process::text)
       from worker.asleep a
      where a.until > clock_timestamp() and a.due >= (select min(n.scheduled_at) from n where n.queued)
      order by a.since desc
      limit 1;
    return null;
end $$;

create trigger ring after insert on worker.job_queue
    referencing new table as n for each statement execute function worker.ring();
