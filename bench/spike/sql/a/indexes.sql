-- A: rows stay; only indexes on columns that never change after the claim. Settle is HOT.
create index job_queue_tenant on worker.job_queue (tenant_id, id) where tenant_id is not null;
create index job_queue_type on worker.job_queue (job_type, id);
create view worker.jobs as select * from worker.job_queue;
