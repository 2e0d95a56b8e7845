-- Settle: what became of attempts is written, fenced by the claim, in one statement for the whole batch.

create or replace function worker.appended(errors jsonb, attempt integer, at timestamptz, message text) returns jsonb
language sql immutable
begin atomic
  -- The last five are kept; the oldest goes first.
  select case when message is null then errors else
    case when jsonb_array_length(coalesce(errors, '[]')) >= 5 then errors - 0 else coalesce(errors, '[]') end
    || jsonb_build_object('attempt', attempt, 'at', at, 'message', message) end;
end;
comment on function worker.appended(jsonb, integer, timestamptz, text) is 'The row''s errors with one more, the last five kept';

create or replace function worker.free_keys(keys text[], holders bigint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  -- Separate statements on purpose: only a snapshot taken after the slots are ours sees rows parked behind them.
  perform from worker.key_slot s where s.key = any (keys) and s.job_id = any (holders) order by s.key for update;
  delete from worker.key_slot s where s.key = any (keys) and s.job_id = any (holders);
  perform worker.unpark(keys);
end
$$;
comment on function worker.free_keys(text[], bigint[]) is 'Frees the concurrency keys of settled jobs and queues the head of each line behind them';

create or replace function worker.unpark(keys text[]) returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  heads integer;
begin
  update worker.job_queue j set queued = true, parked = false
  where j.ctid = any (array(
    select head.ctid from unnest(keys) as k (key)
    cross join lateral (
      select q.ctid from worker.job_queue q where q.parked and q.concurrency_key = k.key
      order by q.priority, q.scheduled_at, q.id limit 1 for no key update skip locked) head));
  get diagnostics heads = row_count;
  return heads;
end
$$;
comment on function worker.unpark(text[]) is 'Queues the first parked row of each key''s line';

create or replace function worker.follow(ids bigint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
  -- Tags of completed steps that were not announced yet, whatever became of the attempt; marked in this transaction.
  with announced as (
    update worker.job_step s set announced = true
    from worker.job_queue j join worker.job_type t on t.name = j.job_type
    where j.id = any (ids) and s.job_id = j.id and s.status = 'completed' and not s.announced
      and t.announces = 'tags' and cardinality(s.tags) > 0
    returning s.job_id, s.tags
  ), parent as (
    select a.job_id, jsonb_agg(distinct tag order by tag) as tags from announced a cross join unnest(a.tags) tag group by a.job_id
  )
  insert into worker.job_queue (job_type, payload, tenant_id, correlation_id, traceparent, parent_id)
  select next_type, jsonb_build_object('tags', p.tags, 'parent', worker.parent_of(j)), j.tenant_id, j.correlation_id,
    j.traceparent, j.id
  from parent p join worker.job_queue j on j.id = p.job_id join worker.job_type t on t.name = j.job_type
  cross join unnest(t.then_types) next_type
  order by j.id, next_type;

  insert into worker.job_queue (job_type, payload, tenant_id, correlation_id, traceparent, parent_id)
  select next_type, jsonb_build_object('parent', worker.parent_of(j)) || case
      when j.status = 'failed' then jsonb_build_object('error', j.errors -> -1 ->> 'message')
      -- A result that would make the payload too large stays on the parent.
      when octet_length(j.result::text) > 60000 then '{}' else jsonb_build_object('result', j.result) end,
    j.tenant_id, j.correlation_id, j.traceparent, j.id
  from worker.job_queue j join worker.job_type t on t.name = j.job_type
  cross join unnest(case when j.status = 'failed' then t.then_failed
    when j.status = 'completed' and t.announces = 'result' then t.then_types end) next_type
  where j.id = any (ids) and j.finish_reason is distinct from 'fallback'
  order by j.id, next_type;
end
$$;
comment on function worker.follow(bigint[]) is
  'Inserts what follows settled jobs, in the settle''s own transaction: then with fresh tags or the result, then_failed with the error';

create or replace function worker.parent_of(job worker.job_queue) returns jsonb
language sql immutable
begin atomic
  select jsonb_build_object('id', job.id, 'job_type', job.job_type, 'status', job.status);
end;
comment on function worker.parent_of(worker.job_queue) is 'What a follow-up''s payload says of its parent';

create or replace function worker.enqueue_follows(verdicts worker.verdict[], settled_ids bigint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '20ms'
as $$
declare
  follow record;
begin
  -- One by one in key order, through enqueue: a type with a unique key is kept. A key held by an open transaction ends
  -- this settle with 55P03, and the daemon sends the verdict again.
  for follow in
    select j.tenant_id as inherited, j.correlation_id, j.id as parent_id, j.traceparent as trace, f.*
    from unnest(verdicts) v
    join worker.job_queue j on j.id = v.id and j.id = any (settled_ids)
    cross join lateral jsonb_to_recordset(v.follows::jsonb) as f (
      job_type text, payload jsonb, delay double precision, priority integer, unique_key text, tenant_id text, source text,
      traceparent text)
    where v.follows is not null and j.status = v.status
    order by f.job_type, worker.unique_key_of(f.job_type, f.payload), j.id
  loop
    perform set_config('worker.parent', follow.parent_id::text, true);  -- read by the insert's trigger
    perform set_config('worker.traceparent', coalesce(follow.traceparent, follow.trace, ''), true);  -- and by enqueue
    perform worker.enqueue(follow.job_type, follow.payload, delay => make_interval(secs => follow.delay),
      priority => follow.priority, unique_key => follow.unique_key, on_conflict => 'keep',
      tenant_id => coalesce(follow.tenant_id, follow.payload ->> 'tenant_id', follow.inherited),
      correlation_id => follow.correlation_id, source => follow.source);
  end loop;
  perform set_config('worker.parent', '', true);
  perform set_config('worker.traceparent', '', true);
end
$$;
comment on function worker.enqueue_follows(worker.verdict[], bigint[]) is
  'Inserts what handlers enqueued through their context, with the verdict of the job that did it';

create or replace function worker.ring_others(me bigint, types text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  -- Not for me: whoever settles looks by itself, and NOTIFY makes the commits of the whole server queue up.
  select pg_notify('worker', sleeper.id::text)
  from (select a.process_id as id from worker.asleep a join worker.process p on p.id = a.process_id
        where a.process_id <> me and a.until > clock_timestamp() and p.types && ring_others.types
        order by a.since desc limit 1) sleeper
$$;
comment on function worker.ring_others(bigint, text[]) is
  'Wakes one sleeping daemon, other than me, that runs one of these types: rows of theirs are due, which went back to pending or which it may have passed over';

create or replace function worker.due_types(types text[]) returns text[]
language sql stable
begin atomic
  select array_agg(distinct l.job_type) from worker.lines(types) l
  where exists (
    select from worker.job_queue q
    where q.queued and q.job_type = l.job_type and q.priority = l.priority and q.scheduled_at <= worker.now());
end;
comment on function worker.due_types(text[]) is 'Those of the given types that have due rows, or null';

create or replace function worker.wind_up(me bigint, verdicts worker.verdict[], ids bigint[], types text[], keys text[],
  holders bigint[], due text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  followed boolean;
  audited boolean;
  limited text[];
begin
  if keys is not null then
    perform worker.free_keys(keys, holders);
  end if;
  select bool_or(t.then_types <> '{}' or t.then_failed <> '{}'), bool_or(t.audit),
         array_agg(t.name) filter (where t.limits ? 'running')
  into followed, audited, limited
  from worker.job_type t where t.name = any (types);
  if limited is not null then
    perform worker.free_slots(ids, limited);
  end if;
  if audited then
    perform worker.note_verdicts(me, coalesce(verdicts, worker.plain(ids)), ids);
  end if;
  if followed then
    perform worker.follow(ids);
  end if;
  -- The gate of the inserts' ring: read without a query, and shut when nobody sleeps.
  if (due is not null or limited is not null)
     and pg_sequence_last_value('worker.bell') >= date_part('epoch', clock_timestamp()) then
    perform worker.ring_others(me, due || case when limited is not null then worker.due_types(limited) end);
  end if;
end
$$;
comment on function worker.wind_up(bigint, worker.verdict[], bigint[], text[], text[], bigint[], text[]) is
  'What follows from settled rows, in their transaction: keys and slots are free, events are noted, jobs that follow are inserted, and who waits for any of it is rung';

create or replace function worker.settle(me bigint, verdicts worker.verdict[]) returns table (id bigint, status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
-- The plan of the fenced write must not flip under stale statistics. jit is off because the price of a forbidden scan,
-- in whatever small function is called for each row, would start the compiler 500 times (measured: 6 s instead of 4 ms).
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set lock_timeout = '100ms'
as $$
#variable_conflict use_column
declare
  instant timestamptz := worker.now();
  ids bigint[];
  statuses text[];
  keys text[];
  holders bigint[];
  types text[];
  due text[];
begin
  with settled as (
    update worker.job_queue j set
      status = case when v.status = 'pending' and j.cancel_requested_at is not null then 'cancelled' else v.status end,
      queued = v.status = 'pending' and j.cancel_requested_at is null,
      trouble = v.status in ('failed', 'cancelled') or (v.status = 'pending' and j.cancel_requested_at is not null),
      claimed_by = case when v.status <> 'pending' or j.cancel_requested_at is not null then j.claimed_by end,
      finished_at = case when v.status <> 'pending' or j.cancel_requested_at is not null then instant end,
      finish_reason = case when v.status in ('pending', 'cancelled') and j.cancel_requested_at is not null
                           then coalesce(j.cancel_reason, 'cancelled') else v.reason end,
      scheduled_at = case when v.status <> 'pending' then j.scheduled_at
                          -- Handed back unharmed: it keeps its place in the line.
                          when not v.counted and not v.snoozed then least(j.scheduled_at, instant)
                          else least(coalesce(v.until, instant + make_interval(secs => v.delay)), '9000-01-01 00:00+00') end,
      attempt = case when v.counted then j.attempt else greatest(j.attempt - 1, 0) end,
      snoozes = j.snoozes + v.snoozed::integer,
      held_key = case when v.status = 'pending' and j.cancel_requested_at is null then j.held_key end,
      errors = case when v.error is null then j.errors else worker.appended(j.errors, j.attempt, instant, v.error) end,
      result = coalesce(v.result::jsonb, j.result),
      payload = coalesce(v.payload::jsonb, j.payload),
      -- For worker.go_along; a payload of its own means that the receiver took a part, so it is there.
      phase = case when j.coalesced and v.status = 'pending' and v.payload is null and (v.snoozed or v.error is not null)
                   then 'backoff' end
    from (select * from unnest(verdicts) order by id) v
    where j.id = v.id and j.claim = v.claim and j.status = 'running'
    returning j.id, j.status, j.concurrency_key, j.job_type, j.status = 'pending' and j.scheduled_at <= instant as due
  )
  select array_agg(s.id), array_agg(s.status),
         array_agg(s.concurrency_key) filter (where s.concurrency_key is not null),
         array_agg(s.id) filter (where s.concurrency_key is not null), array_agg(distinct s.job_type::text),
         array_agg(distinct s.job_type::text) filter (where s.due)
  into ids, statuses, keys, holders, types, due
  from settled s;

  perform worker.wind_up(me, verdicts, ids, types, keys, holders, due);
  if exists (select from unnest(verdicts) v where v.follows is not null) then
    perform worker.enqueue_follows(verdicts, ids);
  end if;
  if exists (select from unnest(verdicts) v where not v.keep_steps) then
    delete from worker.job_step s using unnest(verdicts) v
    where s.job_id = v.id and not v.keep_steps and v.id = any (ids);
  end if;
  return query select * from unnest(ids, statuses);
end
$$;
comment on function worker.settle(bigint, worker.verdict[]) is
  'Writes up to 1,000 verdicts, fenced by (id, claim): the answer lacks what was lost. A cancel request wins over every way back to pending. Frees concurrency keys and slots, and queues who waits behind a key';

create or replace function worker.settled(me bigint, verdicts worker.verdict[])
returns table (id bigint, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select j.id, j.status from unnest(verdicts) v join worker.job_queue j on j.id = v.id and j.claim = v.claim
  where j.status <> 'running'
$$;
comment on function worker.settled(bigint, worker.verdict[]) is
  'The verdicts that are on their rows already, with the status these got: read back after an acknowledgement was lost';
