-- What a claim must not walk over: 1 M due rows of a paused type and 1 M future rows of ten types, all at the best priority.
insert into worker.job_type (name, paused) values ('type_paused', true);
insert into worker.job_queue (job_type, payload, tenant_id, scheduled_at, priority)
select case when i % 2 = 0 then 'type_paused' else 'type_' || i / 2 % 10 end, jsonb_build_object('player', i), 'tenant_' || i % 20,
       case when i % 2 = 0 then now() - interval '1 hour' else now() + interval '1 day' * (1 + i / 2e6) end, 0
  from generate_series(1, 2000000) i;
