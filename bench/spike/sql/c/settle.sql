-- settle, final rows move: two fenced statements, one for each direction, then the keys.
create function worker.settle(ids bigint[], claims bigint[], statuses text[], reasons text[], delays interval[], results jsonb[])
returns bigint[] language plpgsql
set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    settled bigint[];
    more    bigint[];
    freed   text[];
    freed2  text[];
begin
    with gone as (
        delete from worker.job_queue q
         using (select * from unnest(ids, claims, statuses, reasons, results) as v(id, claim, status, reason, result)
                 where v.status <> 'pending' order by v.id) v
         where q.id = v.id and q.claim = v.claim and q.status = 'running'
        returning q.*, v.status as new_status, v.reason as new_reason, v.result as new_result
    ), kept as (
        insert into worker.job_history (
            id, parent_id, claimed_by, batch, claim, scheduled_at, created_at, started_at, finished_at, expires_at,
            deadline_at, cancel_requested_at, attempt, max_attempts, rescues, snoozes, priority, queued, parked, trouble,
            job_type, status, payload, unique_key, unique_while, held_key, concurrency_key, tenant_id, enqueued_by,
            correlation_id, traceparent, source, phase, progress, result, errors, finish_reason)
        select id, parent_id, claimed_by, batch, claim, scheduled_at, created_at, started_at, now(), expires_at,
               deadline_at, cancel_requested_at, attempt, max_attempts, rescues, snoozes, priority, false, false,
               new_status in ('failed', 'cancelled'),
               job_type, new_status, payload, unique_key, unique_while, null, concurrency_key, tenant_id, enqueued_by,
               correlation_id, traceparent, source, phase, progress, new_result, errors, new_reason
          from gone
        returning id, concurrency_key
    )
    select array_agg(kept.id), array_agg(kept.concurrency_key) filter (where kept.concurrency_key is not null)
      into settled, freed
      from kept;

    if 'pending' = any(statuses) then
        with back as (
            update worker.job_queue q
               set status = 'pending', queued = true, scheduled_at = now() + v.delay, claimed_by = null, finish_reason = v.reason
              from (select * from unnest(ids, claims, statuses, reasons, delays) as v(id, claim, status, reason, delay)
                     where v.status = 'pending' order by v.id) v
             where q.id = v.id and q.claim = v.claim and q.status = 'running'
            returning q.id, q.concurrency_key
        )
        select array_agg(back.id), array_agg(back.concurrency_key) filter (where back.concurrency_key is not null)
          into more, freed2
          from back;
        settled := settled || more;
        freed := freed || freed2;
    end if;
    if freed is not null then
        perform worker.free_keys(freed, settled);
    end if;
    return settled;
end $$;
