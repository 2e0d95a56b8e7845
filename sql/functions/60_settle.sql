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

create or replace function worker.settle(me bigint, verdicts worker.verdict[]) returns table (id bigint, status text)
language plpgsql security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
-- The plan of the fenced write must not flip under stale statistics. jit is off because the price of a forbidden scan,
-- in whatever small function is called for each row, would start the compiler 500 times (measured: 6 s instead of 4 ms).
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set lock_timeout = '2s'
as $$
#variable_conflict use_column
declare
  instant timestamptz := worker.now();
  ids bigint[];
  statuses text[];
  keys text[];
  holders bigint[];
begin
  with settled as (
    update worker.job_queue j set
      status = case when v.status = 'pending' and j.cancel_requested_at is not null then 'cancelled' else v.status end,
      queued = v.status = 'pending' and j.cancel_requested_at is null,
      trouble = v.status in ('failed', 'cancelled') or (v.status = 'pending' and j.cancel_requested_at is not null),
      claimed_by = case when v.status <> 'pending' or j.cancel_requested_at is not null then j.claimed_by end,
      finished_at = case when v.status <> 'pending' or j.cancel_requested_at is not null then instant end,
      finish_reason = case when v.status = 'pending' and j.cancel_requested_at is not null
                           then coalesce(j.cancel_reason, 'cancelled') else v.reason end,
      scheduled_at = case when v.status <> 'pending' then j.scheduled_at
                          else least(coalesce(v.until, instant + make_interval(secs => v.delay)), '9000-01-01 00:00+00') end,
      attempt = case when v.counted then j.attempt else greatest(j.attempt - 1, 0) end,
      snoozes = j.snoozes + v.snoozed::integer,
      held_key = case when v.status = 'pending' and j.cancel_requested_at is null then j.held_key end,
      errors = worker.appended(j.errors, j.attempt, instant, v.error),
      result = coalesce(v.result::jsonb, j.result),
      phase = null
    from (select * from unnest(verdicts) order by id) v
    where j.id = v.id and j.claim = v.claim and j.status = 'running'
    returning j.id, j.status, j.concurrency_key
  )
  select array_agg(s.id), array_agg(s.status),
         array_agg(s.concurrency_key) filter (where s.concurrency_key is not null),
         array_agg(s.id) filter (where s.concurrency_key is not null)
  into ids, statuses, keys, holders
  from settled s;

  if keys is not null then
    perform worker.free_keys(keys, holders);
  end if;
  if exists (select from unnest(verdicts) v where not v.keep_steps) then
    delete from worker.job_step s using unnest(verdicts) v
    where s.job_id = v.id and not v.keep_steps and v.id = any (ids);
  end if;
  return query select * from unnest(ids, statuses);
end
$$;
comment on function worker.settle(bigint, worker.verdict[]) is
  'Writes up to 1,000 verdicts, fenced by (id, claim): the answer lacks what was lost. A cancel request wins over every way back to pending. Frees concurrency keys and queues who waits behind them';

create or replace function worker.settled(me bigint, verdicts worker.verdict[])
returns table (id bigint, status text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
  select j.id, j.status from unnest(verdicts) v join worker.job_queue j on j.id = v.id and j.claim = v.claim
  where j.status <> 'running'
$$;
comment on function worker.settled(bigint, worker.verdict[]) is
  'The verdicts that are on their rows already, with the status these got: read back after an acknowledgement was lost';
