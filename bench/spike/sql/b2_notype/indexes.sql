-- B2 without the index for the list by type.
-- B2: rows stay; a boolean that only failed and cancelled rows set, and (claimed_by, batch), which settle leaves alone.
-- The settle of a completed row is HOT.
create index job_queue_tenant on worker.job_queue (tenant_id, id) where tenant_id is not null;
create index job_queue_type on worker.job_queue (job_type, id);
create index job_queue_trouble on worker.job_queue (id) where trouble;
create index job_queue_batch on worker.job_queue (claimed_by, batch) where claimed_by is not null;
create view worker.jobs as select * from worker.job_queue;
drop index worker.job_queue_type;
