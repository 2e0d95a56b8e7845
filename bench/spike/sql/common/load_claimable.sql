-- Due rows of fifty types at priority 100: 60,000 of type_0, 1,000 of each other.
insert into worker.job_queue (job_type, payload, tenant_id, scheduled_at)
select 'type_' || case when i <= 60000 then 0 else 1 + i % 49 end, jsonb_build_object('player', i, 'reason', repeat('x', 70)),
       'tenant_' || i % 20, now() - interval '1 minute'
  from generate_series(1, 109000) i
