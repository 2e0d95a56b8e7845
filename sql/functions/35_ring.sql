-- Who inserts wakes who sleeps (docs/decisions/0004).

create or replace function worker.ring() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  rung bigint;
begin
  -- NOTIFY makes commits of the whole server queue up, so it is sent only when somebody sleeps past a due row.
  select a.process_id into rung from worker.asleep a
  where a.until > clock_timestamp() and a.due >= (select min(n.scheduled_at) from new_rows n where n.queued)
  order by a.since desc limit 1;
  if rung is not null then
    perform pg_notify('worker', rung::text);
  end if;
  return null;
end
$$;
comment on function worker.ring() is 'Trigger: wakes one sleeping daemon when a new row is due before its next look';

create or replace trigger ring after insert on worker.job_queue
referencing new table as new_rows for each statement
when (pg_sequence_last_value('worker.bell') >= date_part('epoch', clock_timestamp()))
execute function worker.ring();
