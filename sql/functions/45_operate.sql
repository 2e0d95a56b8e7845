-- For operators: what a person does to jobs and types, and the answer to "why does it not run?".
--
-- What writes is of the owner and leaves an event that names the caller; what reads has the caller's own rights.

create or replace function worker.caller() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(nullif(current_setting('role', true), 'none'), session_user)
$$;
comment on function worker.caller() is 'Who calls, also from inside a function of the owner: the role that was set, else the login';

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
  job := worker.rekeyed(job);
  if fresh then
    delete from worker.job_step s where s.job_id = job.id;
  end if;
  perform worker.reopen(job, worker.now());
  insert into worker.job_event (job_id, event, actor, detail)
  values (job.id, 'retry', worker.caller(), jsonb_strip_nulls(jsonb_build_object(
    'was', job.status, 'reason', job.finish_reason, 'attempt', job.attempt, 'fresh', nullif(fresh, false))));
  perform worker.ring_for(job.job_type);
  return 'pending';
end
$$;
comment on function worker.retry(bigint, boolean) is
  'Makes a failed or cancelled job pending and due now, with attempts, rescues and snoozes at 0 and no expiry; finished steps stay done unless fresh. Refuses when its unique key is held by another (WK003, DETAIL is the holder''s id) and for every other status (WK020)';

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
  if job.held_key is not null then
    perform worker.meet(job, 'refuse', instant);
  end if;
  update worker.job_queue j set
    status = 'pending', queued = true, parked = false, trouble = false, scheduled_at = instant, finished_at = null,
    attempt = 0, rescues = 0, snoozes = 0, claimed_by = null, phase = null, progress = null, finish_reason = null,
    cancel_requested_at = null, cancel_reason = null, expires_at = null, deadline_at = null,
    unique_key = job.unique_key, concurrency_key = job.concurrency_key, held_key = job.held_key
  where j.id = job.id;
exception when unique_violation or sqlstate 'WK003' then
  holder_id := (worker.holder(job.job_type, job.held_key, job.tenant_id)).id;
  raise exception 'job % cannot be retried: job % holds its unique key "%"', job.id, coalesce(holder_id::text, '?'), job.unique_key
    using errcode = 'WK003', detail = coalesce(holder_id::text, ''), hint = 'Wait for that job, or cancel it first.';
end
$$;
comment on function worker.reopen(worker.job_queue, timestamptz) is
  'Writes a final row back to pending, due at an instant; the deadline is set anew by the next start. Second half of worker.retry';

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
  insert into worker.job_event (job_id, event, actor, detail)
  values (null, case when stop then 'pause' else 'resume' end, worker.caller(), jsonb_build_object('job_type', set_paused.type));
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

create or replace function worker.prune(keep jsonb, after bigint default 0, n integer default 5000,
  out last bigint, out gone integer, out more boolean)
language plpgsql security definer
-- A page is a small part of the table, also where nobody has counted it yet.
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set lock_timeout = '2s'
as $$
declare
  instant timestamptz := worker.now();
  horizon timestamptz;  -- nothing created after it can be old enough
  page bigint[];
begin
  gone := 0;
  more := false;
  -- One at a time is enough; whoever comes second leaves it to the first.
  if not pg_try_advisory_xact_lock(hashtextextended('worker.prune', 0)) then
    return;
  end if;
  select instant - make_interval(secs => min(k.value::double precision)) into horizon from jsonb_each_text(keep) k;

  select max(q.id), coalesce(array_agg(q.id) filter (where q.finished_at
           < instant - make_interval(secs => (keep ->> q.status)::double precision)), '{}'),
         coalesce(count(*) = n and max(q.created_at) < horizon, false)
  into last, page, more
  from (select j.id, j.status, j.finished_at, j.created_at from worker.job_queue j
        where j.id > after order by j.id limit n) q;

  with deleted as (
    delete from worker.job_queue j where j.id = any (page) and j.finished_at is not null returning j.id
  )
  select array_agg(d.id), count(*) into page, gone from deleted d;
  delete from worker.job_event e where e.job_id = any (page);
  if after = 0 then
    perform worker.prune_processes(instant - interval '1 day');
    perform worker.forget_rates();
  end if;
end
$$;
comment on function worker.prune(jsonb, bigint, integer) is
  'Deletes the finished jobs among the n rows after an id that are older than keep ({"completed": seconds, …}; a status that is not named is kept for ever), with their steps and events. Answers with the last id seen, how many went, and whether old ones may follow. Never touches unfinished jobs';

create or replace function worker.prune_processes(before timestamptz) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  delete from worker.process p
  where (p.stopped_at < before or (p.dead_at < before and p.emptied_at < before))
    and not exists (select from worker.job_queue j where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running')
$$;
comment on function worker.prune_processes(timestamptz) is
  'Forgets processes that stopped before an instant, or died and were emptied by then; part of worker.prune';

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
  select e.code, e.sentence into code, sentence
  from (
    select 1 as rank, x.* from worker.explain_state(job, worker.now()) x
    union all select 2, x.* from worker.explain_type(job) x
    union all select 3, x.* from worker.explain_limit(job) x
    union all select 4, x.* from worker.explain_key(job) x
    union all select 5, 'should_run_now', format('It is due since %s; %s. A free daemon takes it at its next look.',
      worker.ago(worker.now() - job.scheduled_at), worker.explain_line(job))) e
  where e.code is not null
  order by e.rank limit 1;
end
$$;
comment on function worker.explain_job(bigint) is
  'Why a job is where it is: a code (running, done, expired, scheduled_later, retry_backoff, type_paused, type_disabled, no_worker_for_type, no_worker_alive, type_limit, rate_limited, concurrency_key_busy, should_run_now) and a sentence for people';

create or replace function worker.ago(span interval) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case
    when s < 120 then round(s::numeric, 1) || ' s' when s < 7200 then round(s::numeric / 60) || ' min'
    when s < 172800 then round(s::numeric / 3600) || ' h' else round(s::numeric / 86400) || ' d' end
  from (select extract(epoch from span) as s) seconds
$$;
comment on function worker.ago(interval) is 'A span of time for eyes: 3.4 s, 12 min, 5 h, 9 d';

create or replace function worker.explain_state(job worker.job_queue, instant timestamptz, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  away text := worker.ago(job.scheduled_at - instant);
begin
  if job.finish_reason = 'expired' or (job.status = 'pending' and job.expires_at <= instant) then
    code := 'expired';
    sentence := format('It was not started before it expired, at %s.', job.expires_at);
  elsif job.finished_at is not null then
    code := 'done';
    sentence := concat('It is ', job.status, ' since ', job.finished_at, coalesce(': ' || nullif(job.finish_reason, job.status), ''), '.',
      case when job.trouble then ' worker.retry runs it again.' end);
  elsif job.status = 'running' then
    code := 'running';
    sentence := concat('Process ', job.claimed_by, ' runs its attempt ', job.attempt, ' of ', job.max_attempts,
      case when job.cancel_requested_at is not null then '; it was asked to end' end,
      case when exists (select from worker.process p where p.id = job.claimed_by and p.dead_at is not null)
           then '; that process is dead, another takes the job over' end, '.');
  elsif job.scheduled_at > instant and job.phase = 'rate' then
    code := 'rate_limited';
    sentence := format('Its type starts at a rate, and there was no token: it is booked for %s, in %s.', job.scheduled_at, away);
  elsif job.scheduled_at > instant and job.started_at is not null and job.attempt > 0 then
    code := 'retry_backoff';
    sentence := format('Attempt %s of %s failed (%s); the next one is due in %s.', job.attempt, job.max_attempts,
      coalesce(left(job.errors -> -1 ->> 'message', 200), 'no message'), away);
  elsif job.scheduled_at > instant then
    code := 'scheduled_later';
    sentence := format('It is %s until %s, in %s.', case when job.snoozes > 0 then 'snoozed' else 'scheduled' end, job.scheduled_at, away);
  end if;
end
$$;
comment on function worker.explain_state(worker.job_queue, timestamptz) is 'What the row alone says; part of worker.explain_job';

create or replace function worker.explain_type(job worker.job_queue, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  declared worker.job_type;
  alive bigint;
  able bigint;
begin
  select * into declared from worker.job_type t where t.name = job.job_type;
  select count(*), count(*) filter (where job.job_type = any (p.types)) into alive, able from worker.process p
  where p.dead_at is null and p.stopped_at is null and p.lease_until > worker.now();
  if declared.paused then
    code := 'type_paused';
    sentence := format('The type %s is paused: worker.resume(''%s'') goes on with it.', job.job_type, job.job_type);
  elsif not declared.enabled and not declared.fallback then
    code := 'type_disabled';
    sentence := format('The type %s is off: enabled = false in worker.toml.', job.job_type);
  elsif declared.name is null then
    code := 'no_worker_for_type';
    sentence := format('Nobody declared the type %s: it waits until a worker.toml does.', job.job_type);
  elsif alive = 0 then
    code := 'no_worker_alive';
    sentence := 'No daemon is alive: start one with `worker run`.';
  elsif able = 0 then
    code := 'no_worker_for_type';
    sentence := format('%s daemon(s) are alive, but none claims the type %s: their worker.toml does not declare it, or has worker.enabled = false.',
      alive, job.job_type);
  end if;
end
$$;
comment on function worker.explain_type(worker.job_queue) is 'What its type and the daemons say; part of worker.explain_job';

create or replace function worker.explain_limit(job worker.job_queue, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  slots bigint;
  taken bigint[];
begin
  select count(*) filter (where s.slot > 0), array_agg(s.job_id order by s.job_id) filter (where s.job_id is not null) into slots, taken
  from worker.type_slot s where s.job_type = job.job_type;
  if slots > 0 and cardinality(taken) >= slots then
    code := 'type_limit';
    sentence := format('As many jobs of %s run as its limit of %s allows: %s. Each one''s end lets another start.', job.job_type,
      slots, array_to_string(taken[:5], ', ') || case when cardinality(taken) > 5 then ' …' else '' end);
  end if;
end
$$;
comment on function worker.explain_limit(worker.job_queue) is 'Whether the running limit of its type is reached; part of worker.explain_job';

create or replace function worker.explain_key(job worker.job_queue, out code text, out sentence text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  holder_id bigint;
begin
  select s.job_id into holder_id from worker.key_slot s where s.key = job.concurrency_key;
  if holder_id is not null or job.parked then
    code := 'concurrency_key_busy';
    sentence := format('It waits behind its concurrency key "%s"%s.', job.concurrency_key,
      coalesce(', which job ' || holder_id || ' holds', ': others are first in that line'));
  end if;
end
$$;
comment on function worker.explain_key(worker.job_queue) is 'Who holds its concurrency key; part of worker.explain_job';

create or replace function worker.explain_line(job worker.job_queue) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select case ahead when 0 then 'no job of its type is before it' when 1000 then '1000 jobs of its type or more are before it'
    else ahead || ' of its type are before it' end
  from (
    select count(*) as ahead from (
      select from worker.job_queue q
      where q.queued and q.job_type = job.job_type and q.scheduled_at <= worker.now()
        and (q.priority, q.scheduled_at, q.id) < (job.priority, job.scheduled_at, job.id)
      limit 1000) before) counted
$$;
comment on function worker.explain_line(worker.job_queue) is 'How many due jobs of its type are claimed first; part of worker.explain_job';

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
  jobs := worker.start(rows, me, batch, worker.now());
  perform worker.note_claims(me, jobs);
  return query select * from unnest(jobs);
end
$$;
comment on function worker.claim_job(bigint, bigint, bigint) is
  'Tests only, owner only: claims one job, when worker.claim would; no row when it would not, and worker.explain_job says why';

-- Rights.
revoke all on function worker.claim_job(bigint, bigint, bigint), worker.caller(), worker.ring_for(text), worker.retry(bigint, boolean), worker.rekeyed(worker.job_queue),
  worker.reopen(worker.job_queue, timestamptz), worker.retry_failed(text, bigint, integer, boolean), worker.pause(text),
  worker.resume(text), worker.set_paused(text, boolean), worker.prune(jsonb, bigint, integer), worker.prune_processes(timestamptz),
  worker.explain_job(bigint), worker.ago(interval), worker.explain_state(worker.job_queue, timestamptz),
  worker.explain_type(worker.job_queue), worker.explain_limit(worker.job_queue), worker.explain_key(worker.job_queue), worker.explain_line(worker.job_queue) from public;
grant execute on function worker.retry(bigint, boolean), worker.retry_failed(text, bigint, integer, boolean), worker.pause(text),
  worker.resume(text) to worker_operate;
grant execute on function worker.prune(jsonb, bigint, integer) to worker_run;
grant execute on function worker.explain_job(bigint), worker.ago(interval), worker.explain_state(worker.job_queue, timestamptz),
  worker.explain_type(worker.job_queue), worker.explain_limit(worker.job_queue), worker.explain_key(worker.job_queue), worker.explain_line(worker.job_queue) to worker_read;
