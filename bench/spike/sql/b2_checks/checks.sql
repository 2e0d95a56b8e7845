-- The bounds of what a producer may write, as constraints of the table: tested again by every UPDATE of a row.
alter table worker.job_queue
    add constraint job_queue_scheduled_at check (scheduled_at between '2000-01-01' and '9000-01-01'),
    add constraint job_queue_expires_at check (expires_at between '2000-01-01' and '9000-01-01'),
    add constraint job_queue_max_attempts check (max_attempts between 1 and 1000),
    add constraint job_queue_priority check (priority between 0 and 1000),
    add constraint job_queue_job_type check (job_type ~ '^[a-z][a-z0-9_]{0,62}$'),
    add constraint job_queue_payload check (octet_length(payload::text) <= 65536),
    add constraint job_queue_unique_key check (octet_length(unique_key) <= 255),
    add constraint job_queue_concurrency_key check (octet_length(concurrency_key) <= 255),
    add constraint job_queue_tenant_id check (octet_length(tenant_id) <= 255),
    add constraint job_queue_correlation_id check (octet_length(correlation_id) <= 255),
    add constraint job_queue_traceparent check (octet_length(traceparent) <= 255),
    add constraint job_queue_source check (octet_length(source) <= 63);
