-- Bulks: many jobs retried or cancelled by a filter, page by page. A bulk is one event that carries its state, so that
-- no page holds locks for long, and whoever goes on with it goes on where it stands.

create or replace function worker.bulk_filter(verb text, filter jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  wanted jsonb := jsonb_strip_nulls(filter);
  known text[] := case verb when 'retry' then '{type,status,finish_reason,error,tenant,since,until,ids}'::text[]
    when 'cancel' then '{type,status,error,tenant,since,until,ids}' end;
  statuses text[] := case verb when 'retry' then '{failed,cancelled}'::text[] else '{pending,running}' end;
  given record;
  wrong text;
begin
  if known is null then
    wrong := format('a bulk retries or cancels, it does not %s', coalesce(verb, 'null'));
  elsif jsonb_typeof(wanted) is distinct from 'object' or wanted = '{}' then
    wrong := 'a bulk needs a filter that names something; an empty one would mean every job';
  end if;
  for given in select f.key, f.value, jsonb_typeof(f.value) as kind from jsonb_each(case when wrong is null then wanted else '{}' end) f loop
    wrong := case
      when not given.key = any (known) then format('the filter of a bulk %s has no key "%s"', verb, given.key)
      when given.key = 'ids' and (given.kind <> 'array' or jsonb_array_length(given.value) not between 1 and 10000
        or jsonb_path_exists(given.value, '$[*] ? (@.type() != "number" || @ < 1 || @ > 9223372036854775807 || @.floor() != @)')) then 'ids are 1 to 10000 numbers of jobs'
      when given.key <> 'ids' and (given.kind <> 'string' or given.value = '""') then format('%s is a text that is not empty', given.key)
      when given.key = 'status' and not wanted ->> 'status' = any (statuses) then format('status is one of %s', array_to_string(statuses, ', '))
    end;
    exit when wrong is not null;
    if given.key in ('since', 'until') then
      begin
        wanted := jsonb_set(wanted, array[given.key], to_jsonb((wanted ->> given.key)::timestamptz));
      exception when datetime_field_overflow or invalid_datetime_format or invalid_parameter_value then
        wrong := format('%s is no time: %s', given.key, given.value);
        exit;
      end;
    end if;
  end loop;
  if wrong is not null then
    raise exception '%', wrong using errcode = 'WK024', hint = 'Its keys: ' || array_to_string(coalesce(known, '{}'), ', ') || '.';
  end if;
  -- Who was cancelled was so on purpose: retried only when the filter says it.
  return case when verb = 'retry' and wanted -> 'status' is null and wanted -> 'ids' is null then wanted || '{"status": "failed"}' else wanted end;
end
$$;
comment on function worker.bulk_filter(text, jsonb) is
  'The filter of a bulk, checked (WK024). Keys, all of which must fit: type, status (retry: failed, which is meant without ids, or cancelled; cancel: pending, running), finish_reason (retry only), error (part of the last error, in upper or lower case), tenant, since and until (when the job ended, for cancel: when it was made; inclusive), ids';

create or replace function worker.bulk_fits(filter jsonb, job_type text, status text, finish_reason text, tenant_id text,
  errors jsonb, instant timestamptz) returns boolean
language sql stable
begin atomic
  select (not filter ? 'type' or job_type = filter ->> 'type')
    and (not filter ? 'status' or status = filter ->> 'status')
    and (not filter ? 'finish_reason' or finish_reason = filter ->> 'finish_reason')
    and (not filter ? 'tenant' or tenant_id = filter ->> 'tenant')
    and (not filter ? 'since' or instant >= (filter ->> 'since')::timestamptz)
    and (not filter ? 'until' or instant <= (filter ->> 'until')::timestamptz)
    and (not filter ? 'error' or strpos(lower(errors -> -1 ->> 'message'), lower(filter ->> 'error')) > 0);
end;
comment on function worker.bulk_fits(jsonb, text, text, text, text, jsonb, timestamptz) is 'Whether a job fits a checked filter, but for its ids';

create or replace function worker.bulk_look(verb text, filter jsonb, after bigint, look integer default 5000,
  out ids bigint[], out last bigint, out more boolean)
-- In the order of an index, so that a page reads so many rows and no others, whatever statistics say.
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off
set enable_bitmapscan = off set jit = off
as $$
begin
  if filter ? 'ids' then
    select array_agg(s.id order by s.id) filter (where s.fits), max(s.id), count(*) = look into ids, last, more
    from (select j.id, case verb when 'retry' then j.trouble else j.finished_at is null and j.cancel_requested_at is null end
            and worker.bulk_fits(filter, j.job_type, j.status, j.finish_reason, j.tenant_id, j.errors, coalesce(j.finished_at, j.created_at)) as fits
          from worker.job_queue j
          where j.id = any (array(select i::bigint from jsonb_array_elements_text(filter -> 'ids') i)) and j.id > after
          order by j.id limit look) s;
  elsif verb = 'retry' then
    select array_agg(s.id order by s.id) filter (where s.fits), max(s.id), count(*) = look into ids, last, more
    from (select j.id, worker.bulk_fits(filter, j.job_type, j.status, j.finish_reason, j.tenant_id, j.errors, j.finished_at) as fits
          from worker.job_queue j where j.trouble and j.id > after order by j.id limit look) s;
  elsif filter ? 'type' then
    select array_agg(s.id order by s.id) filter (where s.fits), max(s.id), count(*) = look into ids, last, more
    from (select j.id, j.finished_at is null and j.cancel_requested_at is null
            and worker.bulk_fits(filter, j.job_type, j.status, null, j.tenant_id, j.errors, j.created_at) as fits
          from worker.job_queue j where j.job_type = filter ->> 'type' and j.id > after order by j.id limit look) s;
  else
    select array_agg(s.id order by s.id) filter (where s.fits), max(s.id), count(*) = look into ids, last, more
    from (select j.id, j.finished_at is null and j.cancel_requested_at is null
            and worker.bulk_fits(filter, j.job_type, j.status, null, j.tenant_id, j.errors, j.created_at) as fits
          from worker.job_queue j where j.id > after order by j.id limit look) s;
  end if;
  ids := coalesce(ids, '{}');
end
$$;
comment on function worker.bulk_look(text, jsonb, bigint, integer) is
  'The jobs that fit a checked filter among the next so many after an id, the last one looked at, and whether there may be more';

create or replace function worker.bulk_start(verb text) returns bigint
language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
as $$
  -- Nothing before the oldest open job is worth a look for a cancel. A bare min(id) would read past the finished ones.
  select case verb when 'retry' then 0 else coalesce(least(
    (select min(q.id + 0) from worker.job_queue q where q.queued), (select min(q.id + 0) from worker.job_queue q where q.parked),
    (select min(r.id) from worker.process p cross join lateral (
       select j.id from worker.job_queue j where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'
       order by j.batch limit 20000) r
     where p.stopped_at is null and p.emptied_at is null)) - 1, 9223372036854775807) end
$$;
comment on function worker.bulk_start(text) is 'The id after which a bulk begins to look';

create or replace function worker.bulk_preview(verb text, filter jsonb, sample integer default 20, look integer default 200000) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
as $$
declare
  wanted jsonb := worker.bulk_filter(verb, filter);
  found bigint[] := '{}';
  seen bigint := worker.bulk_start(verb);
  ahead boolean := true;
  page bigint[];
begin
  for step in 1 .. ceil(look / 5000.0) loop
    select l.ids, l.last, l.more into page, seen, ahead from worker.bulk_look(verb, wanted, seen) l;
    found := found || page;
    exit when not ahead;
  end loop;
  return jsonb_build_object('verb', verb, 'filter', wanted, 'count', cardinality(found), 'more', ahead,
    'groups', (select coalesce(jsonb_agg(to_jsonb(g) order by g.count desc, g.job_type, g.status, g.finish_reason), '[]') from (
      select j.job_type, j.status, j.finish_reason, count(*) from worker.job_queue j where j.id = any (found) group by 1, 2, 3) g),
    'sample', (select coalesce(jsonb_agg(jsonb_build_object('id', j.id, 'job_type', j.job_type, 'status', j.status, 'tenant_id', j.tenant_id,
        'finish_reason', j.finish_reason, 'error', left(j.errors -> -1 ->> 'message', 300), 'created_at', j.created_at, 'finished_at', j.finished_at)
        order by j.id), '[]')
      from worker.job_queue j where j.id = any (array(
        select found[1 + k * cardinality(found) / least(sample, cardinality(found))]
        from generate_series(0, least(sample, cardinality(found)) - 1) k))));
end
$$;
comment on function worker.bulk_preview(text, jsonb, integer, integer) is
  'What a bulk retry or cancel with this filter would do, and does nothing: {"verb", "filter" as it was understood, "count", "more": true when only the first `look` jobs were looked at and there may be more, "groups": [{"job_type", "status", "finish_reason", "count"}], "sample": jobs from all over what was found}. WK024: the filter is refused';

-- Rights.
revoke all on function worker.bulk_filter(text, jsonb), worker.bulk_fits(jsonb, text, text, text, text, jsonb, timestamptz),
  worker.bulk_look(text, jsonb, bigint, integer), worker.bulk_start(text), worker.bulk_preview(text, jsonb, integer, integer) from public;
grant execute on function worker.bulk_preview(text, jsonb, integer, integer) to worker_operate;
