-- The verdict that nearly all attempts come to, by the hundred: done, and nothing to say.

create or replace function worker.plain(ids bigint[]) returns worker.verdict[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
  select array_agg((j.id, j.claim, 'completed', null, 0, null, true, false, true, null, null, null, null)::worker.verdict)
  from worker.job_queue j where j.id = any (ids)
$$;
comment on function worker.plain(bigint[]) is 'The verdicts that worker.complete was spared, for the audit';

create or replace function worker.complete(me bigint, ids bigint[], claims bigint[]) returns bigint[]
language plpgsql security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off set lock_timeout = '100ms'
as $$
declare
  instant timestamptz := worker.now();
  done bigint[];
  types text[];
  keys text[];
  holders bigint[];
begin
  with settled as (
    update worker.job_queue j set status = 'completed', finished_at = instant, held_key = null, phase = null
    from (select v.id, v.claim from unnest(ids, claims) as v (id, claim) order by v.id) v
    where j.id = v.id and j.claim = v.claim and j.status = 'running'
    returning j.id, j.concurrency_key, j.job_type
  )
  select array_agg(s.id), array_agg(distinct s.job_type::text),
         array_agg(s.concurrency_key) filter (where s.concurrency_key is not null),
         array_agg(s.id) filter (where s.concurrency_key is not null)
  into done, types, keys, holders
  from settled s;

  perform worker.wind_up(me, null, done, types, keys, holders, null);
  if cardinality(done) = cardinality(ids) then
    return '{}';
  end if;
  return array(select given from unnest(ids) given where not given = any (coalesce(done, '{}')));
end
$$;
comment on function worker.complete(bigint, bigint[], bigint[]) is
  'Completes up to 1,000 attempts that have no result, as worker.settle does in a third of the time; answers with the ids whose claim was lost';
