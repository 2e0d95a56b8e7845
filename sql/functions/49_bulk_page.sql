-- The pages of a bulk: what it does to jobs.

create or replace function worker.bulk_begin(verb text, filter jsonb, rate double precision default null,
  fresh boolean default false, reason text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  instant timestamptz := worker.now();
  wanted jsonb := worker.bulk_filter(verb, filter);
  wrong text := case
    when rate is not null and verb = 'cancel' then 'a rate is for a bulk retry'
    when rate is not null and rate not between 1e-6 and 1e6 then 'the rate is a number of jobs a second, from 0.000001 to 1000000'
    when fresh and verb = 'cancel' then 'fresh is for a bulk retry'
    when reason is not null and verb = 'retry' then 'a reason is for a bulk cancel'
    when octet_length(reason) > 1000 then 'the reason is at most 1000 bytes long' end;
begin
  if wrong is not null then
    raise exception '%', wrong using errcode = 'WK024';
  end if;
  -- What fails, or is enqueued, from now on is not meant.
  wanted := wanted || jsonb_build_object('until', least((wanted ->> 'until')::timestamptz, instant));
  return worker.note_deed(null, 'bulk_' || verb, jsonb_build_object('filter', wanted, 'rate', rate, 'fresh', nullif(fresh, false),
    'reason', reason, 'next_at', instant, 'after', worker.bulk_start(verb), 'done', 0, 'refused', 0, 'more', true));
end
$$;
comment on function worker.bulk_begin(text, jsonb, double precision, boolean, text) is
  'Begins a bulk: verb retry or cancel; filter as in worker.bulk_filter; for retry `rate`, jobs a second by which their due times are spread from now on, and `fresh`; for cancel a reason. It changes no job yet, but leaves an event that names the caller, whose id is the answer: worker.bulk_page goes on with it. Jobs that end, or are enqueued, later than now do not count';

create or replace function worker.bulk_page(bulk bigint, n integer default 500,
  out done integer, out refused integer, out refusals jsonb, out more boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' set jit = off
as $$
declare
  verb text;
  state jsonb;
  found record;
  page bigint[];
  due timestamptz;
begin
  select substr(e.event, 6), e.detail into verb, state from worker.job_event e
  where e.id = bulk and e.event in ('bulk_retry', 'bulk_cancel') for no key update;
  if verb is null then
    raise exception 'no bulk %', coalesce(bulk::text, 'null') using errcode = 'WK025', hint = 'worker.bulk_begin answers with its number.';
  end if;
  n := greatest(least(n, 5000), 1);
  select l.ids, l.last, l.more into found from worker.bulk_look(verb, state -> 'filter', (state ->> 'after')::bigint) l;
  page := found.ids[:n];
  more := found.more or cardinality(found.ids) > n;
  if verb = 'retry' then
    select r.done, r.refusals, r.due into done, refusals, due
    from worker.bulk_retry(page, (state ->> 'next_at')::timestamptz, (state ->> 'rate')::double precision, state ? 'fresh', bulk) r;
  else
    select c.done, c.refusals into done, refusals from worker.bulk_cancel(page, state ->> 'reason', bulk) c;
  end if;
  refused := jsonb_array_length(refusals);
  update worker.job_event e set detail = e.detail || jsonb_strip_nulls(jsonb_build_object('next_at', due, 'more', more,
    'after', case when cardinality(found.ids) > n then page[n] else coalesce(found.last, (state ->> 'after')::bigint) end,
    'done', (state ->> 'done')::bigint + done, 'refused', (state ->> 'refused')::bigint + refused))
  where e.id = bulk;
end
$$;
comment on function worker.bulk_page(bigint, integer) is
  'The next page of a bulk, of n jobs at most: how many were done, how many refused, [{"id", "code", "message", "holder"}] of these (WK003: its unique key is held by the job `holder`; WK020: it cannot run; 55P03: somebody has it in hand), and whether there is more to look at; call it until there is not. Its event keeps the sums. WK025: no such bulk';

create or replace function worker.bulk_retry(page bigint[], due_from timestamptz, rate double precision, fresh boolean, bulk bigint,
  out done integer, out refusals jsonb, out due timestamptz)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  instant timestamptz := worker.now();
  job worker.job_queue;
  refusal jsonb;
  seen bigint[] := '{}';
  now_due text[] := '{}';
begin
  done := 0;
  refusals := '[]';
  due := due_from;
  for job in
    select j.* from worker.job_queue j where j.id = any (page) and j.trouble order by j.id for no key update skip locked
  loop
    seen := seen || job.id;
    due := greatest(due, instant);
    refusal := worker.bulk_try(job, fresh, due, bulk);
    if refusal is not null then
      refusals := refusals || refusal;
      continue;
    end if;
    done := done + 1;
    if due <= instant and not job.job_type = any (now_due) then
      now_due := now_due || job.job_type::text;
    end if;
    due := due + make_interval(secs => coalesce(1 / rate, 0));
  end loop;
  perform worker.ring_for(t) from unnest(now_due) t;
  refusals := refusals || worker.bulk_missed(page, seen);
end
$$;
comment on function worker.bulk_retry(bigint[], timestamptz, double precision, boolean, bigint) is
  'worker.retry for one page of a bulk; `due` is when the next one is to come';

create or replace function worker.bulk_try(job worker.job_queue, fresh boolean, due timestamptz, bulk bigint) returns jsonb
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  said text;
  holder text;
begin
  if job.unique_key is null and job.finish_reason is distinct from 'invalid' then
    perform worker.retry_row(job, fresh, due, bulk);  -- cannot be refused, so it needs no subtransaction
    return null;
  end if;
  begin
    perform worker.retry_row(job, fresh, due, bulk);
    return null;
  exception when sqlstate 'WK003' or sqlstate 'WK020' or lock_not_available then
    get stacked diagnostics said = message_text, holder = pg_exception_detail;
    return jsonb_strip_nulls(jsonb_build_object('id', job.id, 'code', sqlstate, 'message', said,
      'holder', case when sqlstate = 'WK003' then nullif(holder, '')::bigint end));
  end;
end
$$;
comment on function worker.bulk_try(worker.job_queue, boolean, timestamptz, bigint) is 'Retries one locked job of a bulk; null, or why not';

create or replace function worker.bulk_cancel(page bigint[], reason text, bulk bigint, out done integer, out refusals jsonb)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  seen bigint[];
begin
  perform set_config('worker.bulk', bulk::text, true);  -- the trigger's event names it
  with asked as (
    update worker.job_queue j set cancel_requested_at = worker.now(), cancel_reason = reason
    where j.ctid = any (array(
      select q.ctid from worker.job_queue q
      where q.id = any (page) and q.finished_at is null and q.cancel_requested_at is null
      order by q.id for no key update skip locked))
    returning j.id
  )
  select coalesce(array_agg(a.id), '{}'), count(*) into seen, done from asked a;
  perform set_config('worker.bulk', '', true);
  refusals := worker.bulk_missed(page, seen);
end
$$;
comment on function worker.bulk_cancel(bigint[], text, bigint) is
  'worker.cancel for one page of a bulk: pending jobs are cancelled, running ones asked to end';

create or replace function worker.bulk_missed(page bigint[], seen bigint[]) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object('id', id, 'code', '55P03', 'message',
    format('job %s is in the hands of somebody else, or was just now', id)) order by id), '[]')
  from unnest(page) id where not id = any (seen)
$$;
comment on function worker.bulk_missed(bigint[], bigint[]) is 'The refusals of those jobs of a page that could not be locked, or changed meanwhile';

-- Rights.
revoke all on function worker.bulk_begin(text, jsonb, double precision, boolean, text), worker.bulk_page(bigint, integer),
  worker.bulk_retry(bigint[], timestamptz, double precision, boolean, bigint), worker.bulk_try(worker.job_queue, boolean, timestamptz, bigint),
  worker.bulk_cancel(bigint[], text, bigint), worker.bulk_missed(bigint[], bigint[]) from public;
grant execute on function worker.bulk_begin(text, jsonb, double precision, boolean, text), worker.bulk_page(bigint, integer) to worker_operate;
