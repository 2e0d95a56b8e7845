-- For operators: what a person does to a job or a type. Each is of the owner, and leaves an event that names who did it.

create or replace function worker.login() returns text
language sql stable
begin atomic
  select coalesce(nullif(current_setting('role', true), 'none'), session_user);
end;
comment on function worker.login() is 'The role that calls, also from inside a function of the owner: the one that was set, else the login';

create or replace function worker.caller() returns text
language sql stable
begin atomic
  select case when coalesce(current_setting('worker.actor', true), '') <> ''
                and (pg_has_role(worker.login(), 'worker_operate', 'member') or pg_has_role(worker.login(), 'worker_run', 'member'))
    then left(current_setting('worker.actor', true), 100) else worker.login() end;
end;
comment on function worker.caller() is
  'Who acts, as events tell it: the setting worker.actor, by which a program that acts for somebody names them (web:KEY), for members of worker_operate and worker_run only; else the role that calls';

create or replace function worker.note_deed(job_id bigint, event text, detail jsonb) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  insert into worker.job_event (job_id, event, actor, detail)
  values (note_deed.job_id, note_deed.event, worker.caller(),
    jsonb_strip_nulls(note_deed.detail || jsonb_build_object('login', nullif(worker.login(), worker.caller()))))
  returning id
$$;
comment on function worker.note_deed(bigint, text, jsonb) is
  'The event of what a person or program did on purpose; where worker.actor names somebody, `login` is the role that said so. Answers with the id of the event';

create or replace function worker.ring_for(job_type text) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  select pg_notify('worker', sleeper.id::text)
  from (select a.process_id as id from worker.asleep a join worker.process p on p.id = a.process_id
        where a.until > clock_timestamp() and ring_for.job_type = any (p.types)
        order by a.since desc limit 1) sleeper
$$;
comment on function worker.ring_for(text) is 'Wakes one sleeping daemon that runs a type, for rows that became due without an insert';

create or replace function worker.retry(id bigint, fresh boolean default false) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  job worker.job_queue;
begin
  select * into job from worker.job_queue j where j.id = retry.id for no key update;
  if job.id is null then
    raise exception 'no job %', retry.id using errcode = 'WK008', hint = 'worker.jobs lists them; a pruned job is gone.';
  elsif not job.trouble then
    raise exception 'job % is %: only failed and cancelled jobs are retried', job.id, job.status
      using errcode = 'WK020', hint = 'Enqueue a new one.';
  end if;
  perform worker.retry_row(job, fresh, worker.now());
  perform worker.ring_for(job.job_type);
  return 'pending';
end
$$;
comment on function worker.retry(bigint, boolean) is
  'Makes a failed or cancelled job pending and due now, with attempts, rescues and snoozes at 0 and no expiry; finished steps stay done unless fresh. Refuses when its unique key is held by another (WK003, DETAIL is the holder''s id) and for every other status (WK020)';

create or replace function worker.retry_row(job worker.job_queue, fresh boolean, due timestamptz, bulk bigint default null) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  job := worker.rekeyed(job);
  if fresh then
    delete from worker.job_step s where s.job_id = job.id;
  end if;
  perform worker.reopen(job, due);
  perform worker.note_deed(job.id, 'retry', jsonb_build_object(
    'was', job.status, 'reason', job.finish_reason, 'attempt', job.attempt, 'fresh', nullif(fresh, false), 'bulk', bulk));
end
$$;
comment on function worker.retry_row(worker.job_queue, boolean, timestamptz, bigint) is
  'Makes a locked failed or cancelled row pending, due at an instant, with its event; the heart of worker.retry and of bulks';

create or replace function worker.rekeyed(job worker.job_queue) returns worker.job_queue
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  declared worker.job_type;
begin
  -- A row that was invalid when it was inserted has no keys; the type, or its payload, may have been mended since.
  if job.finish_reason = 'invalid' and job.started_at is null then
    select * into declared from worker.job_type t where t.name = job.job_type;
    job.unique_key := coalesce(job.unique_key, worker.fill(declared.unique_key, job));
    job.concurrency_key := coalesce(job.concurrency_key, worker.fill(declared.concurrency_key, job));
    if (job.unique_key is null and declared.unique_key is not null)
       or (job.concurrency_key is null and declared.concurrency_key is not null)
       or (worker.fill(declared.limits -> 'rate' ->> 'key', job) is null and declared.limits -> 'rate' ->> 'key' is not null) then
      raise exception 'job % still cannot run: %', job.id, job.errors -> -1 ->> 'message'
        using errcode = 'WK020', hint = 'Enqueue a new one with a payload that has what the keys of its type need.';
    end if;
  end if;
  -- Only a job that never started waits, and so holds a key that is unique while waiting.
  job.held_key := case when job.unique_while = 'active' or job.started_at is null then job.unique_key end;
  return job;
end
$$;
comment on function worker.rekeyed(worker.job_queue) is 'The row with the keys that it needs to be pending again; first half of worker.retry';

create or replace function worker.reopen(job worker.job_queue, instant timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  holder_id bigint;
begin
  if job.held_key is null then
    perform worker.put_back(job, instant);  -- without a subtransaction: a bulk has hundreds of them in one
    return;
  end if;
  begin
    perform worker.meet(job, 'refuse', worker.now());
    perform worker.put_back(job, instant);
  exception when unique_violation or sqlstate 'WK003' then
    holder_id := (worker.holder(job.job_type, job.held_key, job.tenant_id)).id;
    raise exception 'job % cannot be retried: job % holds its unique key "%"', job.id, coalesce(holder_id::text, '?'), job.unique_key
      using errcode = 'WK003', detail = coalesce(holder_id::text, ''), hint = 'Wait for that job, or cancel it first.';
  end;
end
$$;
comment on function worker.reopen(worker.job_queue, timestamptz) is
  'Writes a final row back to pending, due at an instant, unless another job holds its unique key (WK003)';

create or replace function worker.put_back(job worker.job_queue, instant timestamptz) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  update worker.job_queue j set
    status = 'pending', queued = true, parked = false, trouble = false, scheduled_at = instant, finished_at = null,
    attempt = 0, rescues = 0, snoozes = 0, claimed_by = null, phase = null, progress = null, finish_reason = null,
    cancel_requested_at = null, cancel_reason = null, expires_at = null, deadline_at = null,
    unique_key = job.unique_key, concurrency_key = job.concurrency_key, held_key = job.held_key
  where j.id = job.id
$$;
comment on function worker.put_back(worker.job_queue, timestamptz) is
  'The row as good as new, but for its steps, errors and first start; the deadline is set anew by the next start';

create or replace function worker.retry_failed(job_type text, after bigint default 0, n integer default 500,
  fresh boolean default false, out last bigint, out retried integer, out refused integer)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  failed_id bigint;
begin
  retried := 0;
  refused := 0;
  for failed_id in
    select j.id from worker.job_queue j
    where j.trouble and j.status = 'failed' and j.job_type = retry_failed.job_type and j.id > after
    order by j.id limit n
  loop
    last := failed_id;
    begin
      perform worker.retry(failed_id, fresh);
      retried := retried + 1;
    exception when sqlstate 'WK003' or sqlstate 'WK008' or sqlstate 'WK020' then
      refused := refused + 1;  -- its key is held, or somebody else was faster
    end;
  end loop;
end
$$;
comment on function worker.retry_failed(text, bigint, integer, boolean) is
  'worker.retry for one page of n failed jobs of a type after an id; answers with the last id (null: no more), how many went and how many were refused because their key is held';

create or replace function worker.set_paused(type text, stop boolean) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  was boolean;
begin
  select t.paused into was from worker.job_type t where t.name = set_paused.type for no key update;
  if was is null then
    raise exception 'nobody declared the type %', coalesce('"' || set_paused.type || '"', 'null')
      using errcode = 'WK021', hint = 'worker.type_status lists the types; worker.toml declares them.';
  elsif was = stop then
    return false;
  end if;
  update worker.job_type t set paused = stop where t.name = set_paused.type;
  perform worker.note_deed(null, case when stop then 'pause' else 'resume' end, jsonb_build_object('job_type', set_paused.type));
  if not stop then
    perform worker.ring_for(set_paused.type);
  end if;
  return true;
end
$$;
comment on function worker.set_paused(text, boolean) is 'Pauses or resumes a type, with an event; refuses undeclared names (WK021)';

create or replace function worker.pause(type text) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select worker.set_paused(type, true)
$$;
comment on function worker.pause(text) is
  'No more claims of a type until worker.resume; running jobs go on. False when it was paused already';

create or replace function worker.resume(type text) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
  select worker.set_paused(type, false)
$$;
comment on function worker.resume(text) is 'Ends a pause and wakes a daemon; false when the type was not paused';

create or replace function worker.claim_job(me bigint, batch bigint, id bigint) returns setof worker.claimed
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  rows tid[];
  slots tid[];
  jobs worker.claimed[];
begin
  perform worker.enter(me, batch);
  rows := array(
    select q.ctid from worker.job_queue q join worker.job_type t on t.name = q.job_type
    where q.id = claim_job.id and q.queued and q.scheduled_at <= worker.now() and not t.paused and t.enabled
      and (q.expires_at is null or q.expires_at > worker.now())
    for no key update of q);
  slots := array(
    select slot from worker.job_queue j join worker.job_type t on t.name = j.job_type
    cross join lateral unnest(worker.take_slots(t.name, 1, '{}')) slot
    where j.ctid = any (rows) and t.limits ? 'running');
  if slots = '{}' and exists (
    select from worker.job_queue j join worker.job_type t on t.name = j.job_type and t.limits ? 'running'
    where j.ctid = any (rows)) then
    return;
  end if;
  rows := worker.ration(worker.take_keys(rows), 1);
  perform worker.stand_in(slots, rows);
  jobs := worker.start(rows, me, batch, worker.now(), true);
  perform worker.note_claims(me, jobs);
  return query select * from unnest(jobs);
end
$$;
comment on function worker.claim_job(bigint, bigint, bigint) is
  'Tests only, owner only: claims one job, when worker.claim would; no row when it would not, and worker.explain_job says why';

-- Rights.
revoke all on function worker.claim_job(bigint, bigint, bigint), worker.login(), worker.caller(), worker.note_deed(bigint, text, jsonb),
  worker.ring_for(text), worker.retry(bigint, boolean), worker.retry_row(worker.job_queue, boolean, timestamptz, bigint),
  worker.rekeyed(worker.job_queue), worker.reopen(worker.job_queue, timestamptz), worker.put_back(worker.job_queue, timestamptz),
  worker.retry_failed(text, bigint, integer, boolean), worker.pause(text), worker.resume(text), worker.set_paused(text, boolean) from public;
grant execute on function worker.retry(bigint, boolean), worker.retry_failed(text, bigint, integer, boolean), worker.pause(text),
  worker.resume(text) to worker_operate;
