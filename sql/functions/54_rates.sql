-- Rates: a token bucket for each key. A token is always taken at the start itself; who finds none is put off, once, to
-- an instant that is booked behind all others, and so is out of the way of what can run.
--
-- Three ways in which a bucket leaks were measured and are shut here (docs/decisions/0020): the clock is read after the
-- lock, or tokens are minted; later starts are booked, or a whole backlog comes back at once; and a booking is no token,
-- or all who slept through a standstill start together.

create or replace function worker.clock_now() returns timestamptz
language sql volatile
begin atomic
  select coalesce((select coalesce(c.at, clock_timestamp() + c.shift) from worker.clock c), clock_timestamp());
end;
comment on function worker.clock_now() is 'worker.now() of this very moment and not of the statement''s begin: what is read after a lock';

create or replace function worker.bucket_of(job worker.job_queue, template text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  filled text := worker.fill(template, job);
begin
  return concat_ws(' ', 'job', job.job_type, case when octet_length(filled) > 500 then md5(filled) else filled end);
end
$$;
comment on function worker.bucket_of(worker.job_queue, text) is
  'The bucket that a job draws from; a template that cannot be filled, or none, means the one of its type';

create or replace function worker.draw(key text, bound integer, per double precision, firm integer, fresh integer, most integer,
  out firm_tokens integer, out fresh_tokens integer, out firm_at timestamptz, out fresh_at timestamptz, out step interval)
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  bucket worker.rate;
  instant timestamptz;
  level double precision;
  spare double precision;
  -- A booked row comes back when its token is there but for a rounding: it gets it, and the debt is kept.
  hair constant double precision := 0.01;
begin
  -- Locks the bucket, or makes it, full.
  insert into worker.rate as r (key, tokens, at, tail, full_at)
  values (draw.key, bound, worker.clock_now(), '-infinity', worker.clock_now())
  on conflict on constraint rate_pkey do update set key = r.key where false;
  select * into bucket from worker.rate r where r.key = draw.key for update;
  instant := worker.clock_now();
  step := make_interval(secs => per / bound);
  level := bucket.tokens + greatest(extract(epoch from instant - bucket.at)::double precision, 0) * bound / per;
  if level >= bound + 1 then
    bucket.tail := least(bucket.tail, instant);  -- full for a while: whoever booked does not come any more
  end if;
  level := least(level, bound);
  firm_tokens := least(firm, floor(level + hair));
  -- While starts are booked, the next token is for who comes back then.
  spare := level - firm_tokens - case when bucket.tail > instant then least(bound, 2) - 1 else 0 end;
  fresh_tokens := greatest(least(fresh, floor(spare + hair)), 0);
  -- The k-th that is put off: at + k * step.
  firm_at := instant - (level - firm_tokens - fresh_tokens) * step;
  fresh_at := greatest(bucket.tail, firm_at + (firm - firm_tokens) * step);
  level := level - least(firm_tokens + fresh_tokens, most);
  update worker.rate r set tokens = level, at = instant, full_at = instant + (bound - level) * step,
    tail = case when fresh > fresh_tokens then least(fresh_at + (fresh - fresh_tokens) * step, '8999-12-31 00:00+00')
                else bucket.tail end
  where r.key = draw.key;
end
$$;
comment on function worker.draw(text, integer, double precision, integer, integer, integer) is
  'Takes up to `most` tokens of a bucket (bound in `per` seconds), for those who have a place first (firm), and books later starts for the rest of the fresh ones. Answers how many there were for each of the two, and from when on, step by step, the others are to come';

create or replace function worker.ration(rows tid[], n integer, out mine tid[])
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  bucket record;
  drawn record;
  firm integer;
  later tid[] := '{}';
  instants timestamptz[] := '{}';
begin
  mine := '{}';
  for bucket in  -- locked in the order of their keys
    with found as (
      select j.ctid as row_id, j as job, t.limits -> 'rate' as rate, t.priority as usual, t.fair,
        -- How many are before it at most: without a rate those of a better priority, with one all.
        count(*) filter (where not coalesce(t.limits, '{}') ? 'rate')
          over (order by j.priority groups between unbounded preceding and 1 preceding)
        + row_number() over (partition by coalesce(t.limits, '{}') ? 'rate' order by j.priority, j.scheduled_at, j.id) as place
      from worker.job_queue j join worker.job_type t on t.name = j.job_type
      where j.ctid = any (rows)
    ), candidate as (
      select f.row_id, f.rate, f.place, (f.job).priority, (f.job).scheduled_at, (f.job).id,
        worker.bucket_of(f.job, f.rate ->> 'key') as key,
        -- Who was put off before has a place, and who is urgent takes the next token.
        (f.job).phase is not null or (f.job).priority < f.usual as firm,
        case when f.fair then row_number() over (
          partition by (f.job).job_type, (f.job).priority, (f.job).tenant_id order by (f.job).scheduled_at, (f.job).id) end as turn
      from found f where f.rate is not null
    )
    select c.key, (c.rate ->> 'limit')::integer as bound, (c.rate ->> 'per')::double precision as per,
      coalesce(array_agg(c.row_id order by c.priority, c.turn, c.scheduled_at, c.id) filter (where c.firm), '{}') as firm,
      coalesce(array_agg(c.row_id order by c.priority, c.turn, c.scheduled_at, c.id) filter (where not c.firm), '{}') as fresh,
      count(*) filter (where c.place <= n)::integer as most
    from candidate c group by c.key, c.rate order by c.key
  loop
    drawn := worker.draw(bucket.key, bucket.bound, bucket.per, cardinality(bucket.firm), cardinality(bucket.fresh), bucket.most);
    firm := least(drawn.firm_tokens, bucket.most);
    mine := mine || bucket.firm[:firm] || bucket.fresh[:least(drawn.fresh_tokens, bucket.most - firm)];
    later := later || bucket.firm[drawn.firm_tokens + 1:] || bucket.fresh[drawn.fresh_tokens + 1:];
    instants := instants
      || array(select drawn.firm_at + k * drawn.step from generate_series(1, cardinality(bucket.firm) - drawn.firm_tokens) k)
      || array(select drawn.fresh_at + k * drawn.step from generate_series(1, cardinality(bucket.fresh) - drawn.fresh_tokens) k);
  end loop;
  mine := mine || array(
    select j.ctid from worker.job_queue j join worker.job_type t on t.name = j.job_type
    where j.ctid = any (rows) and not coalesce(t.limits, '{}') ? 'rate'
    order by j.priority, j.scheduled_at, j.id limit greatest(n - cardinality(mine), 0));
  -- A key is for who starts.
  delete from worker.key_slot s using worker.job_queue j
  where j.ctid = any (rows) and not j.ctid = any (mine) and s.key = j.concurrency_key and s.job_id = j.id;
  update worker.job_queue j set scheduled_at = least(l.instant, '9000-01-01 00:00+00'),
    phase = case when j.coalesced then 'backoff' else 'rate' end  -- for worker.go_along
  from unnest(later, instants) as l (row_id, instant)
  where j.ctid = l.row_id and j.ctid = any (later);
end
$$;
comment on function worker.ration(tid[], integer) is
  'Of locked rows those that may start, n at most: with a token where their type has a rate. Those for whom there is none are put off and marked by the phase `rate`; what stays behind gives back its concurrency key';

create or replace function worker.permit(name text, bound integer, per double precision, back boolean, patience double precision,
  out wait double precision)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
  bucket text := 'permit ' || name;
  drawn record;
begin
  drawn := worker.draw(bucket, bound, per, back::integer, (not back)::integer, 1);
  if drawn.firm_tokens + drawn.fresh_tokens > 0 then
    wait := 0;
    return;
  end if;
  wait := extract(epoch from case when back then drawn.firm_at else drawn.fresh_at end + drawn.step - worker.clock_now());
  wait := greatest(wait, 0.001);
  if wait > patience and not back then
    update worker.rate r set tail = drawn.fresh_at where r.key = bucket;  -- who does not come back books nothing
  end if;
end
$$;
comment on function worker.permit(text, integer, double precision, boolean, double precision) is
  'Draws one token from the bucket of [rate.NAME]: 0 when there was one, else seconds until one is there, to ask again as who comes back. Whoever waits no longer than `patience` has a place in the line';

create or replace function worker.forget_rates() returns integer
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
  forgotten integer;
begin
  delete from worker.rate r where r.key = any (array(
    select o.key from worker.rate o where greatest(o.full_at, o.tail) < worker.now() - interval '1 hour'
    limit 5000 for update skip locked));
  get diagnostics forgotten = row_count;
  return forgotten;
end
$$;
comment on function worker.forget_rates() is 'Deletes buckets that are full and booked by nobody: one that is not there is full; part of worker.prune';

-- Rights.
revoke all on function worker.clock_now(), worker.bucket_of(worker.job_queue, text),
  worker.draw(text, integer, double precision, integer, integer, integer), worker.ration(tid[], integer),
  worker.permit(text, integer, double precision, boolean, double precision), worker.forget_rates() from public;
grant select on worker.rate to worker_read;
grant execute on function worker.permit(text, integer, double precision, boolean, double precision) to worker_run;
