-- $1 due jobs: ten types, twenty tenants, a payload of about 100 bytes, every tenth with a unique key.
insert into worker.job_queue (job_type, payload, tenant_id, unique_key, unique_while, held_key, scheduled_at)
select 'type_' || i % 10, jsonb_build_object('player', i, 'reason', repeat('x', 70)), 'tenant_' || i % 20,
       k.key, 'waiting', k.key, now() - interval '1 minute'
  from generate_series(1, $1::bigint) i
 cross join lateral (select case when i % 10 = 0 then 'key_' || i || '_' || txid_current() end as key) k
