-- 6,000 due jobs behind sixty keys and 2,000 free ones between them.
insert into worker.job_queue (job_type, payload, concurrency_key, scheduled_at)
select 'type_' || i % 10, '{}', case when i % 4 > 0 then 'key_' || i % 60 end, now() - interval '1 minute'
  from generate_series(1, 8000) i
