-- $1 finished rows over ten days, all completed but twenty.
insert into worker.job_queue (job_type, payload, tenant_id, status, queued, trouble, finished_at, created_at, started_at,
                              attempt, claimed_by, batch, claim)
select 'type_' || i % 10, jsonb_build_object('player', i, 'reason', repeat('x', 70)), 'tenant_' || i % 20,
       case when i % ($1 / 20) = 0 then 'failed' else 'completed' end, false, i % ($1 / 20) = 0,
       f.at, f.at, f.at, 1, 1 + i / 500 % 10, i / 5000, nextval('worker.claim_number')
  from generate_series(1, $1::bigint) i
 cross join lateral (select now() - interval '10 days' * (1 - i / $1::float) as at) f
