-- What the web side asks for beside the verbs of operators: what changed, what there is, and jobs with who wanted them.

create or replace function worker.changes(jobs bigint[] default '{}') returns jsonb
-- Asked twice a second while somebody looks at a page: nothing here reads what is pending or finished, however much it is.
language sql stable set enable_seqscan = off set jit = off
begin atomic
  select jsonb_build_object(
    'added', (select s.last_value + s.is_called::integer from worker.job_queue_id_seq s),
    'claimed', (select s.last_value + s.is_called::integer from worker.claim_seq s),
    'event', (select max(e.id) from worker.job_event e),
    'processes', (
      select coalesce(jsonb_agg(jsonb_build_array(p.id, p.dead_at is not null, p.lease_until < worker.now()) order by p.id), '[]')
      from worker.process p where p.stopped_at is null and p.emptied_at is null),
    'running', (
      select coalesce(sum(r.jobs), 0)
      from worker.process p
      cross join lateral (
        select count(*) as jobs from (
          select from worker.job_queue j
          where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'
          order by j.batch limit 20000) held) r
      where p.stopped_at is null and p.emptied_at is null),
    'jobs', (
      select coalesce(jsonb_object_agg(j.id, md5(concat_ws('|', j.status, j.phase, j.progress, j.attempt, j.scheduled_at,
        j.cancel_requested_at, (
          select string_agg(concat_ws(' ', s.name, s.status, s.attempt), ',' order by s.name)
          from worker.job_step s where s.job_id = j.id)))), '{}')
      from worker.job_queue j where j.id = any (jobs)));
end;
comment on function worker.changes(bigint[]) is
  'A small answer that is another one when anything happened in the queue since it was last asked, and of these jobs a digest each; what pages are kept current by';

create or replace function worker.submit(job_type text, payload jsonb, scheduled_at timestamptz default null,
  delay interval default null, priority integer default null, unique_key text default null, on_conflict text default null,
  concurrency_key text default null, tenant_id text default null, max_attempts integer default null,
  expires_at timestamptz default null, correlation_id text default null, source text default null,
  out id bigint, out added boolean)
language plpgsql
as $$
begin
  id := worker.enqueue(submit.job_type, submit.payload, submit.scheduled_at, submit.delay, submit.priority, submit.unique_key,
    submit.on_conflict, submit.concurrency_key, submit.tenant_id, submit.max_attempts, submit.expires_at,
    submit.correlation_id, submit.source);
  added := coalesce(pg_catalog.current_setting('worker.holder', true), '') = '';
  perform worker.note_submission(id, added);
end
$$;
comment on function worker.submit(text, jsonb, timestamptz, interval, integer, text, text, text, text, integer, timestamptz, text, text) is
  'worker.enqueue for a program that enqueues for somebody, whom worker.actor names: an event `enqueue` on the job tells who; added is false where the id is that of the job that holds the unique key';

create or replace function worker.note_submission(job bigint, added boolean) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  perform worker.note_deed(q.id, 'enqueue', jsonb_build_object('kept', nullif(not added, false)))
  from worker.job_queue q where q.id = note_submission.job;
end
$$;
comment on function worker.note_submission(bigint, boolean) is
  'The event `enqueue` of a job that a program enqueued for somebody; kept: it was there already. Part of worker.submit';

revoke all on function worker.changes(bigint[]), worker.note_submission(bigint, boolean),
  worker.submit(text, jsonb, timestamptz, interval, integer, text, text, text, text, integer, timestamptz, text, text) from public;
grant execute on function worker.changes(bigint[]) to worker_read;
grant select on sequence worker.claim_seq, worker.job_queue_id_seq to worker_read;
-- Whoever names somebody else in an event is believed to be a program that knows who that is (worker.caller).
grant execute on function worker.note_submission(bigint, boolean),
  worker.submit(text, jsonb, timestamptz, interval, integer, text, text, text, text, integer, timestamptz, text, text)
  to worker_run, worker_operate;
