-- The answer to "why does it not run?": a code for programs and a sentence for people, with the caller's own rights. The
-- sentence names who holds the job up, until when as far as anybody knows, and what may be done.

create or replace function worker.ago(span interval) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case
    when s < 120 then round(s::numeric, 1) || ' s' when s < 7200 then round(s::numeric / 60) || ' min'
    when s < 172800 then round(s::numeric / 3600) || ' h' else round(s::numeric / 86400) || ' d' end
  from (select extract(epoch from span) as s) seconds
$$;
comment on function worker.ago(interval) is 'A span of time for eyes: 3.4 s, 12 min, 5 h, 9 d';

create or replace function worker.explain_job(id bigint, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  job worker.job_queue;
begin
  select * into job from worker.job_queue j where j.id = explain_job.id;
  if job.id is null then
    raise exception 'no job %', explain_job.id using errcode = 'WK008', hint = 'worker.jobs lists them; a pruned job is gone.';
  end if;
  select x.code, x.sentence into code, sentence from worker.explain_state(job, worker.now()) x;
  if code is null then
    select x.code, x.sentence into code, sentence from worker.explain_type(job) x;
  end if;
  if code is null then
    select x.code, x.sentence into code, sentence from worker.explain_limit(job) x;
  end if;
  if code is null then
    select x.code, x.sentence into code, sentence from worker.explain_key(job) x;
  end if;
  if code is null then
    code := 'should_run_now';
    sentence := format('It is due since %s; %s. %s%s', worker.ago(worker.now() - job.scheduled_at), worker.explain_line(job),
      worker.explain_daemons(job), worker.explain_fate(job));
  end if;
end
$$;
comment on function worker.explain_job(bigint) is
  'Why a job is where it is: a code (running, done, expired, scheduled_later, retry_backoff, type_paused, type_disabled, no_worker_for_type, no_worker_alive, type_limit, rate_limited, concurrency_key_busy, should_run_now) and a sentence that says who holds it up, until when and what to do';

create or replace function worker.explain_deed(job_id bigint, event text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat(' by ', e.actor, ' at ', e.at::timestamptz(0), ': ' || (e.detail ->> 'reason'))
  from worker.job_event e where e.job_id = explain_deed.job_id and e.event = explain_deed.event order by e.id desc limit 1
$$;
comment on function worker.explain_deed(bigint, text) is 'Who last did this to a job, when and why; part of worker.explain_job';

create or replace function worker.explain_process(process_id bigint) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce((
    select format('process %s (%s on %s%s)', p.id, p.pid, p.host, case
      when p.dead_at is not null then ', dead since ' || worker.ago(worker.now() - p.dead_at)
      when p.stopped_at is not null then ', stopped ' || worker.ago(worker.now() - p.stopped_at) || ' ago'
      when p.lease_until <= worker.now() then ', not heard of for ' || worker.ago(worker.now() - p.beat_at) end)
    from worker.process p where p.id = process_id), 'process ' || process_id)
$$;
comment on function worker.explain_process(bigint) is 'A daemon, by number, process and host, and whether it lives; part of worker.explain_job';

create or replace function worker.explain_state(job worker.job_queue, instant timestamptz, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  if job.finish_reason = 'expired' or (job.status = 'pending' and job.expires_at <= instant) then
    code := 'expired';
    sentence := format('It was not started before it expired, at %s%s: enqueue it anew if it is still wanted.', job.expires_at,
      case when job.finished_at is null then ', and is ended within a second while a daemon runs' end);
  elsif job.finished_at is not null then
    code := 'done';
    sentence := worker.explain_end(job);
  elsif job.status = 'running' then
    code := 'running';
    sentence := worker.explain_running(job);
  elsif job.scheduled_at > instant then
    select x.code, x.sentence into code, sentence
    from worker.explain_later(job, format('%s, in %s', job.scheduled_at, worker.ago(job.scheduled_at - instant))) x;
  end if;
end
$$;
comment on function worker.explain_state(worker.job_queue, timestamptz) is 'What the row alone says; part of worker.explain_job';

create or replace function worker.explain_end(job worker.job_queue) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat('It is ', job.status, ' since ', job.finished_at, ', ', case job.status || '/' || coalesce(job.finish_reason, '')
      when 'failed/exhausted' then 'after all of its ' || job.max_attempts || ' attempts'
      when 'failed/permanent' then 'for its code said that trying again is of no use'
      when 'failed/timeout' then 'for its attempt took too long and was its last'
      when 'failed/deadline' then 'for it was past its deadline, ' || coalesce(job.deadline_at::text, 'which its type declares')
      when 'failed/poison' then 'for ' || job.rescues || ' daemons died while they ran it: look at what it does to a process before it runs again'
      when 'failed/invalid' then 'for its payload cannot be used'
      when 'skipped/source_off' then format('for the source %s of %s is off: `sources` in worker.toml', job.source, job.job_type)
      when 'completed/fallback' then 'by an HTTP call, as its type was off and has a fallback'
      else case when job.status = 'cancelled' then 'cancelled' || coalesce(worker.explain_deed(job.id, 'cancel'), ': ' || job.finish_reason)
                when job.finish_reason is null then 'after ' || job.attempt || ' of ' || job.max_attempts || ' attempts'
                else job.finish_reason end end,
    case when job.status = 'failed' then '; its last error: ' || left(job.errors -> -1 ->> 'message', 300) end, '.',
    case when job.trouble then format(' `worker retry %s`, or worker.retry(%s), runs it again.', job.id, job.id) end)
$$;
comment on function worker.explain_end(worker.job_queue) is 'How a job ended, and what may be done about it; part of worker.explain_job';

create or replace function worker.explain_running(job worker.job_queue) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select concat(upper(left(held.by, 1)), substr(held.by, 2), ' runs its attempt ', job.attempt, ' of ', job.max_attempts, ', since ',
    worker.ago(worker.now() - job.started_at), case when job.attempt > 1 or job.snoozes > 0 then ' with those before it' end,
    ', in the phase ' || job.phase,
    (select '; now ' || string_agg(format('step %s for %s', s.name, worker.ago(clock_timestamp() - s.started_at)), ', ' order by s.name)
     from worker.job_step s where s.job_id = job.id and s.claim = job.claim and s.status = 'running'),
    case when job.cancel_requested_at is not null then '; it was asked to end' || coalesce(worker.explain_deed(job.id, 'cancel'), '') end,
    case when held.gone then '; another daemon takes it over, if one runs' else '; `worker cancel ' || job.id || '` ends it' end, '.')
  from (select worker.explain_process(job.claimed_by) as by, exists (
    select from worker.process p where p.id = job.claimed_by and (p.dead_at is not null or p.lease_until <= worker.now())) as gone) held
$$;
comment on function worker.explain_running(worker.job_queue) is 'Who runs a job, since when and at what; part of worker.explain_job';

create or replace function worker.explain_later(job worker.job_queue, due text, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  declared worker.job_type;
  failed text := left(job.errors -> -1 ->> 'message', 300);
begin
  select * into declared from worker.job_type t where t.name = job.job_type;
  if job.phase = 'rate' then
    code := 'rate_limited';
    sentence := format('Jobs of %s start at a rate of %s in %s s, and there was no token%s: it is booked for %s.', job.job_type,
      declared.limits -> 'rate' ->> 'limit', declared.limits -> 'rate' ->> 'per',
      ' for its key "' || (declared.limits -> 'rate' ->> 'key') || '"', due);
  elsif job.phase = 'backoff' and job.attempt = 0 then
    code := 'retry_backoff';
    sentence := format('The last call for its coalesce key "%s" failed; it goes with the next one, due at %s.', job.concurrency_key, due);
  elsif job.started_at is not null and job.attempt > 0 then
    code := 'retry_backoff';
    sentence := format('Attempt %s of %s failed (%s); the next one is due at %s; `worker cancel %s` ends it.', job.attempt,
      job.max_attempts, coalesce(failed, 'no message'), due, job.id);
  else
    code := 'scheduled_later';
    sentence := case
      when job.snoozes > 0 then format('It is snoozed until %s: its code said that it is not time yet, for the %s. time of 1000%s.',
        due, job.snoozes, ' (' || failed || ')')
      when job.started_at is not null or exists (select from worker.job_event e where e.job_id = job.id and e.event = 'retry') then
        format('It is scheduled until %s: retried%s.', due, coalesce(worker.explain_deed(job.id, 'retry'), ''))
      when declared.backlog is not null then format('It is scheduled until %s: its producer wanted it so, or %s jobs of %s were pending when it came, as many as its backlog allows.',
        due, declared.backlog ->> 'max', job.job_type)
      else format('It is scheduled until %s, as its producer wanted it.', due) end;
  end if;
end
$$;
comment on function worker.explain_later(worker.job_queue, text) is 'Why a pending job is not due yet; part of worker.explain_job';

-- Rights.
revoke all on function
  worker.ago(interval), worker.explain_job(bigint), worker.explain_deed(bigint, text),
  worker.explain_process(bigint), worker.explain_state(worker.job_queue, timestamptz),
  worker.explain_end(worker.job_queue), worker.explain_running(worker.job_queue),
  worker.explain_later(worker.job_queue, text)
from public;
grant execute on function
  worker.ago(interval), worker.explain_job(bigint), worker.explain_deed(bigint, text),
  worker.explain_process(bigint), worker.explain_state(worker.job_queue, timestamptz),
  worker.explain_end(worker.job_queue), worker.explain_running(worker.job_queue),
  worker.explain_later(worker.job_queue, text)
to worker_read;
