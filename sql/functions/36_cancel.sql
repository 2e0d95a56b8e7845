-- A cancel request is an update; this trigger does the rest.

create or replace function worker.before_cancel() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  if old.cancel_requested_at is not null then
    new.cancel_requested_at := old.cancel_requested_at;
    new.cancel_reason := old.cancel_reason;
  elsif old.status = 'pending' then
    new.status := 'cancelled';
    new.trouble := true;
    new.finish_reason := coalesce(new.cancel_reason, 'cancelled');
    new.queued := false;
    new.parked := false;
    new.held_key := null;
    new.finished_at := worker.now();
    delete from worker.kept k where k.job_id = new.id;  -- who was answered with this job is cancelled with it
  end if;
  perform worker.note_deed(new.id, 'cancel', jsonb_build_object('was', old.status, 'reason', new.cancel_reason,
    'bulk', case when current_setting('worker.bulk', true) ~ '^[0-9]{1,18}$' and pg_has_role(worker.login(), 'worker_operate', 'member')
      then current_setting('worker.bulk')::bigint end));
  return new;
end
$$;
comment on function worker.before_cancel() is
  'Trigger: a cancel request ends a pending job at once; a running one is asked through its daemon''s next beat';

create or replace trigger before_cancel before update of cancel_requested_at on worker.job_queue
for each row when (new.cancel_requested_at is not null and new.finished_at is null) execute function worker.before_cancel();
