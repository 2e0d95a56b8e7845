-- What a list with filters reads: the newest jobs that match, found in bounded looks, however many jobs there are.

create or replace function worker.running_ids(before_id bigint, n integer) returns bigint[]
-- As worker.queue_depth finds them: through the processes that may hold them, never through the finished ones.
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
  select array(
    select r.id from worker.process p
    cross join lateral (
      select j.id from worker.job_queue j
      where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'
      order by j.batch limit 20000) r
    where p.stopped_at is null and p.emptied_at is null and (before_id is null or r.id < before_id)
    order by r.id desc limit n)
$$;
comment on function worker.running_ids(bigint, integer) is 'The newest n running jobs before an id; part of worker.find_jobs';

create or replace function worker.ids_before(status text, job_type text, tenant_id text, before_id bigint, n integer) returns bigint[]
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
declare
  before constant bigint := coalesce(before_id, 9223372036854775807);
begin
  if status in ('failed', 'cancelled') then
    return array(select q.id from worker.job_queue q where q.trouble and q.id < before order by q.id desc limit n);
  elsif status = 'running' then
    return worker.running_ids(before_id, n);
  elsif tenant_id is not null then
    return array(select q.id from worker.job_queue q where q.tenant_id = ids_before.tenant_id and q.id < before
      order by q.tenant_id desc, q.id desc limit n);
  elsif job_type is not null then
    -- Two bounds in place of "=": going backwards over the primary key would be in order, too.
    return array(select q.id from worker.job_queue q
      where q.job_type >= ids_before.job_type and q.job_type <= ids_before.job_type and q.id < before
      order by q.job_type desc, q.id desc limit n);
  end if;
  return array(select q.id from worker.job_queue q where q.id < before order by q.id desc limit n);
end
$$;
comment on function worker.ids_before(text, text, text, bigint, integer) is
  'The newest n ids before an id by the index that fits these filters best; other filters are not looked at. Part of worker.find_jobs';

create or replace function worker.few_pending(job_type text, most integer) returns bigint[]
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
declare
  found bigint[];
begin
  if job_type is null then
    found := array(select q.id from worker.job_queue q where q.queued limit most + 1);
  else
    found := array(select q.id from worker.job_queue q where q.queued and q.job_type = few_pending.job_type limit most + 1);
  end if;
  found := found || array(select q.id from worker.job_queue q where q.parked limit most + 1 - cardinality(found));
  return case when cardinality(found) <= most then found end;
end
$$;
comment on function worker.few_pending(text, integer) is
  'The pending jobs of a type (null: of all; parked ones of other types are among them), where there are no more than `most`, else null: then the newest ones are soon found anyhow. Part of worker.find_jobs';

create or replace function worker.matching(ids bigint[], job_type text, status text, tenant_id text, search text, since timestamptz, n integer)
returns bigint[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array(
    select q.id from worker.job_queue q
    where q.id = any (ids)
      and (matching.job_type is null or q.job_type = matching.job_type)
      and (matching.status is null or q.status = matching.status)
      and (matching.tenant_id is null or q.tenant_id = matching.tenant_id)
      and (since is null or coalesce(q.finished_at, q.created_at) >= since)
      and (search is null or q.id::text = search
        or strpos(lower(concat_ws(E'\n', q.tenant_id, q.correlation_id, q.unique_key, q.concurrency_key, q.source, q.phase,
             q.finish_reason, q.errors -> -1 ->> 'message')), lower(search)) > 0)
    order by q.id desc limit n)
$$;
comment on function worker.matching(bigint[], text, text, text, text, timestamptz, integer) is
  'Of these jobs the newest n that match all filters; the text is looked for in id, tenant, correlation, keys, source, phase, reason and last error, never in the payload. Part of worker.find_jobs';

create or replace function worker.find_ids(job_type text, status text, tenant_id text, search text, since timestamptz,
  before_id bigint, n integer, most integer, out ids bigint[], out looked integer, out next bigint)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  pending bigint[] := case when status = 'pending' then worker.few_pending(job_type, most) end;
  size integer := least(2 * n, most);
  page bigint[];
begin
  ids := '{}';
  looked := 0;
  next := before_id;
  loop
    if pending is null then
      page := worker.ids_before(status, job_type, tenant_id, next, size);
    else
      page := array(select p from unnest(pending) p where before_id is null or p < before_id);
    end if;
    ids := ids || worker.matching(page, job_type, status, tenant_id, search, since, n + 1 - cardinality(ids));
    looked := looked + cardinality(page);
    next := case when pending is null and cardinality(page) = size then page[size] end;
    exit when next is null or cardinality(ids) > n or looked >= most;
    size := least(size * 4, most - looked);
  end loop;
  if cardinality(ids) > n then
    ids := ids[:n];
    next := ids[n];
  end if;
end
$$;
comment on function worker.find_ids(text, text, text, text, timestamptz, bigint, integer, integer) is
  'The ids of worker.find_jobs; next: where to go on, null at the end';

create or replace function worker.find_jobs(job_type text default null, status text default null, tenant_id text default null,
  search text default null, since timestamptz default null, before_id bigint default null, n integer default 50,
  most integer default 20000) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('looked', f.looked, 'next', f.next, 'jobs', coalesce((
    select jsonb_agg(jsonb_build_object(
      'id', j.id, 'job_type', j.job_type, 'status', j.status, 'label', j.label, 'phase', j.phase, 'tenant_id', j.tenant_id,
      'source', j.source, 'priority', j.priority, 'attempt', j.attempt, 'max_attempts', j.max_attempts,
      'created_at', j.created_at, 'scheduled_at', j.scheduled_at, 'started_at', j.started_at, 'finished_at', j.finished_at,
      'next_run', j.next_run, 'wait', extract(epoch from j.wait), 'duration', extract(epoch from j.duration),
      'finish_reason', j.finish_reason, 'last_error', left(j.last_error, 300), 'cancel_requested_at', j.cancel_requested_at)
      order by j.id desc)
    from worker.jobs j where j.id = any (f.ids)), '[]'))
  from worker.find_ids(job_type, status, tenant_id, search, since, before_id, n, most) f
$$;
comment on function worker.find_jobs(text, text, text, text, timestamptz, bigint, integer, integer) is
  'The newest n jobs that match all filters (null: any; since: finished, or where they are not, created since then; search: in id, tenant, correlation, keys, source, phase, reason, last error). Looks at `most` jobs at most: {jobs, looked, next}, where before_id = next goes on and null is the end';

revoke all on function worker.running_ids(bigint, integer), worker.ids_before(text, text, text, bigint, integer),
  worker.few_pending(text, integer), worker.matching(bigint[], text, text, text, text, timestamptz, integer),
  worker.find_ids(text, text, text, text, timestamptz, bigint, integer, integer),
  worker.find_jobs(text, text, text, text, timestamptz, bigint, integer, integer) from public;
grant execute on function worker.running_ids(bigint, integer), worker.ids_before(text, text, text, bigint, integer),
  worker.few_pending(text, integer), worker.matching(bigint[], text, text, text, text, timestamptz, integer),
  worker.find_ids(text, text, text, text, timestamptz, bigint, integer, integer),
  worker.find_jobs(text, text, text, text, timestamptz, bigint, integer, integer) to worker_read;
