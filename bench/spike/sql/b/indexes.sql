-- B: rows stay; indexes that need status and finished_at. Settle writes every index again.
create index job_queue_tenant on worker.job_queue (tenant_id, id) where tenant_id is not null;
create index job_queue_type on worker.job_queue (job_type, id);
create index job_queue_running on worker.job_queue (claimed_by) where status = 'running';
create index job_queue_status on worker.job_queue (status, id) where status in ('failed', 'cancelled', 'running');
create index job_queue_finished on worker.job_queue (finished_at) where finished_at is not null;
create view worker.jobs as select * from worker.job_queue;
