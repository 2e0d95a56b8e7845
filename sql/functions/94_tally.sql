-- What daemons counted, added up: counters and histograms for whoever cannot reach them, and spans of five minutes for the page.

-- Upper bounds of the buckets in worker.trend, in seconds, as worker/metrics.py has them; one above all of them follows.
create or replace function worker.wait_bounds() returns double precision[]
language sql immutable
begin atomic
  select '{0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300,900,3600,14400,86400}'::double precision[];
end;
comment on function worker.wait_bounds() is 'Upper bounds of the buckets of worker.trend.waits, in seconds; one above all of them follows';

create or replace function worker.run_bounds() returns double precision[]
language sql immutable
begin atomic
  select '{0.001,0.0025,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,120,300,900}'::double precision[];
end;
comment on function worker.run_bounds() is 'Upper bounds of the buckets of worker.trend.runs, in seconds; one above all of them follows';

create or replace function worker.is_count(count jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when jsonb_typeof(count) = 'number' then count::numeric between 0 and 1e7 and count::numeric = trunc(count::numeric)
    else false end
$$;
comment on function worker.is_count(jsonb) is 'Whether this is a whole number that one process can have counted within a span';

create or replace function worker.are_buckets(counts jsonb, buckets integer) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when jsonb_typeof(counts) = 'array' then jsonb_array_length(counts) = buckets
    and not exists (select from jsonb_array_elements(counts) c where not worker.is_count(c)) end
$$;
comment on function worker.are_buckets(jsonb, integer) is 'Whether this is a count for each of so many buckets';

create or replace function worker.are_counts(counts jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_typeof(counts) = 'array' and jsonb_array_length(counts) <= 10000 and not exists (
    select from jsonb_array_elements(counts) c
    where case when jsonb_typeof(c) <> 'object' then true
      when c - array['series', 'labels', 'value'] <> '{}' then true
      when jsonb_typeof(c -> 'series') is distinct from 'string' or c ->> 'series' !~ '^worker_[a-z][a-z0-9_]{0,99}$' then true
      when jsonb_typeof(c -> 'value') is distinct from 'number' or (c -> 'value')::numeric not between 0 and 1e15 then true
      when jsonb_typeof(c -> 'labels') is distinct from 'object' then true
      else exists (
        select from jsonb_each(c -> 'labels') l
        where l.key !~ '^[a-z][a-z0-9_]{0,30}$' or jsonb_typeof(l.value) <> 'string' or length(l.value #>> '{}') > 63)
        or (select count(*) > 4 from jsonb_object_keys(c -> 'labels'))
      end)
$$;
comment on function worker.are_counts(jsonb) is
  'Whether this is what worker.add_counts takes as counts: up to 10,000 of {"series": a name, "labels": {up to four short words}, "value": not below 0}';

create or replace function worker.are_attempts(attempts jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_typeof(attempts) = 'array' and jsonb_array_length(attempts) <= 1000
    and (select count(*) = count(distinct a ->> 'job_type') from jsonb_array_elements(attempts) a) and not exists (
    select from jsonb_array_elements(attempts) a
    where case when jsonb_typeof(a) <> 'object' then true
      when a - array['job_type', 'completed', 'failed', 'again', 'other', 'waits', 'runs'] <> '{}' then true
      when jsonb_typeof(a -> 'job_type') is distinct from 'string' or a ->> 'job_type' !~ '^[a-z][a-z0-9_]{0,62}$' then true
      else exists (
        select from (values ('completed'), ('failed'), ('again'), ('other')) n (name)
        where worker.is_count(a -> n.name) is not true)
        or worker.are_buckets(a -> 'waits', cardinality(worker.wait_bounds()) + 1) is not true
        or worker.are_buckets(a -> 'runs', cardinality(worker.run_bounds()) + 1) is not true
      end)
$$;
comment on function worker.are_attempts(jsonb) is
  'Whether this is what worker.add_counts takes as attempts: each type once, its counts, and how many there were in each bucket';

create or replace function worker.as_other(labels jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(l.key, case when l.key in ('job_type', 'step', 'schedule') then to_jsonb('other'::text)
    else l.value end), '{}')
  from jsonb_each(labels) l
$$;
comment on function worker.as_other(jsonb) is 'The labels of the series under which everything is summed that has none of its own';

create or replace function worker.added(one integer[], other integer[]) returns integer[]
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg((coalesce(u.one, 0) + coalesce(u.other, 0))::integer order by u.at), '{}')
  from unnest(one, other) with ordinality u (one, other, at)
$$;
comment on function worker.added(integer[], integer[]) is 'Two rows of counts, bucket by bucket';

create or replace function worker.add_counts(counts jsonb, attempts jsonb) returns integer
language plpgsql security definer
-- Who comes second waits for one short statement, never for a stranger: its counts keep until the next time.
set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' set jit = off
as $$
declare
  kept constant integer := 10000;  -- series; a daemon of fifty types and a hundred steps has 4,000
  many integer;
  added integer;
  spans integer;
begin
  if not worker.are_counts(counts) or not worker.are_attempts(attempts) then
    raise exception 'these are no counts that a daemon makes' using errcode = '22023',
      hint = 'counts: [{"series", "labels", "value"}], attempts: [{"job_type", "completed", "failed", "again", "other", "waits", "runs"}].';
  end if;
  select count(*) into many from worker.tally;
  -- Everybody takes the rows in the order of their key, so that no two can wait for each other.
  insert into worker.tally as t (series, labels, value)
  select g.series, g.labels, sum(g.value) from (
    select c.series, case when many < kept or exists (
        select from worker.tally known where known.series = c.series and known.labels = c.labels)
      then c.labels else worker.as_other(c.labels) end as labels, c.value
    from jsonb_to_recordset(counts) as c (series text, labels jsonb, value double precision)) g
  where many < 2 * kept
  group by g.series, g.labels
  order by g.series, g.labels
  on conflict on constraint tally_pkey do update set value = t.value + excluded.value;
  get diagnostics added = row_count;
  insert into worker.trend as t (job_type, at, completed, failed, again, other, waits, runs)
  select a.job_type, date_bin('5 minutes', worker.now(), '2000-01-01'), a.completed, a.failed, a.again, a.other, a.waits, a.runs
  from jsonb_to_recordset(attempts) as a (job_type text, completed integer, failed integer, again integer, other integer,
    waits integer[], runs integer[])
  order by a.job_type
  on conflict on constraint trend_pkey do update set completed = t.completed + excluded.completed,
    failed = t.failed + excluded.failed, again = t.again + excluded.again, other = t.other + excluded.other,
    waits = worker.added(t.waits, excluded.waits), runs = worker.added(t.runs, excluded.runs);
  get diagnostics spans = row_count;
  return added + spans;
end
$$;
comment on function worker.add_counts(jsonb, jsonb) is
  'A daemon adds what it counted since it last did: counters and histograms to worker.tally, attempts by type to the running five minutes of worker.trend; answers with how many rows it touched. From 10,000 series on new ones count as "other". Refuses what no daemon sends (22023)';

create or replace function worker.quantile(counts bigint[], bounds double precision[], q double precision) returns double precision
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  wanted double precision := 0;
  below bigint := 0;
  lower double precision := 0;
  n bigint;
begin
  foreach n in array counts loop
    wanted := wanted + coalesce(n, 0) * q;
  end loop;
  if wanted = 0 then
    return null;
  end if;
  for i in 1 .. cardinality(bounds) loop
    n := coalesce(counts[i], 0);
    if below + n >= wanted then
      return lower + (bounds[i] - lower) * (wanted - below) / n;
    end if;
    below := below + n;
    lower := bounds[i];
  end loop;
  return lower;  -- longer than the last bound, and nobody knows by how much
end
$$;
comment on function worker.quantile(bigint[], double precision[], double precision) is
  'An estimate from counts in buckets, within its bucket as if all were spread evenly; the last bound where it lies above it. Null: nothing was counted';

create or replace function worker.trends(since interval, step interval) returns table (job_type text, at timestamptz,
  completed bigint, failed bigint, again bigint, other bigint, wait_p50 double precision, wait_p95 double precision,
  run_p50 double precision, run_p95 double precision)
language sql stable set search_path = pg_catalog, pg_temp set jit = off
as $$
  select s.job_type, s.at, s.completed, s.failed, s.again, s.other,
    worker.quantile(s.waits, worker.wait_bounds(), 0.5), worker.quantile(s.waits, worker.wait_bounds(), 0.95),
    worker.quantile(s.runs, worker.run_bounds(), 0.5), worker.quantile(s.runs, worker.run_bounds(), 0.95)
  from (
    select t.job_type, date_bin(width.of, t.at, '2000-01-01') as at,
      sum(t.completed) as completed, sum(t.failed) as failed, sum(t.again) as again, sum(t.other) as other,
      -- One sum a bucket: to take the arrays apart and put them together again costs twenty times as much.
      array[sum(t.waits[1]), sum(t.waits[2]), sum(t.waits[3]), sum(t.waits[4]), sum(t.waits[5]), sum(t.waits[6]),
        sum(t.waits[7]), sum(t.waits[8]), sum(t.waits[9]), sum(t.waits[10]), sum(t.waits[11]), sum(t.waits[12]),
        sum(t.waits[13]), sum(t.waits[14]), sum(t.waits[15]), sum(t.waits[16]), sum(t.waits[17]), sum(t.waits[18]),
        sum(t.waits[19])] as waits,
      array[sum(t.runs[1]), sum(t.runs[2]), sum(t.runs[3]), sum(t.runs[4]), sum(t.runs[5]), sum(t.runs[6]),
        sum(t.runs[7]), sum(t.runs[8]), sum(t.runs[9]), sum(t.runs[10]), sum(t.runs[11]), sum(t.runs[12]),
        sum(t.runs[13]), sum(t.runs[14]), sum(t.runs[15]), sum(t.runs[16]), sum(t.runs[17]), sum(t.runs[18]),
        sum(t.runs[19])] as runs
    from worker.trend t cross join (select greatest(step, '5 minutes') as of) width
    where t.at >= date_bin(width.of, worker.now() - since, '2000-01-01')
    group by 1, 2) s
  order by s.job_type, s.at
$$;
comment on function worker.trends(interval, interval) is
  'Attempts that ended since so long ago, by type and span of time (five minutes at least, whole spans; one without any has no row): completed, failed, again (pending after it), other (skipped, cancelled); p50 and p95 of wait and run in seconds, estimated from buckets. Reaches back eight days';

create or replace function worker.forget_trends(before timestamptz) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
  delete from worker.trend t where t.at < before;
  delete from worker.tally t
  where t.labels ->> 'job_type' <> 'other' and not exists (select from worker.job_type d where d.name = t.labels ->> 'job_type')
$$;
comment on function worker.forget_trends(timestamptz) is
  'Forgets spans before an instant, and the series of types that are declared no more; part of worker.prune';

-- Rights.
revoke all on function worker.wait_bounds(), worker.run_bounds(), worker.add_counts(jsonb, jsonb), worker.are_counts(jsonb),
  worker.are_attempts(jsonb), worker.are_buckets(jsonb, integer), worker.is_count(jsonb), worker.as_other(jsonb),
  worker.added(integer[], integer[]), worker.quantile(bigint[], double precision[], double precision),
  worker.trends(interval, interval), worker.forget_trends(timestamptz) from public;
grant execute on function worker.add_counts(jsonb, jsonb) to worker_run;
grant select on worker.tally, worker.trend to worker_read;
grant execute on function worker.wait_bounds(), worker.run_bounds(), worker.trends(interval, interval),
  worker.quantile(bigint[], double precision[], double precision) to worker_read;
