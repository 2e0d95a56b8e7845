-- C: settle moves final rows to a history table. The live table keeps the indexes its own lists need.
create index job_queue_running on worker.job_queue (claimed_by) where claimed_by is not null;
create index job_queue_tenant on worker.job_queue (tenant_id, id) where tenant_id is not null;
create index job_queue_type on worker.job_queue (job_type, id);
create table worker.job_history (like worker.job_queue) with (autovacuum_enabled = false);
alter table worker.job_history add primary key (id);
create index job_history_tenant on worker.job_history (tenant_id, id) where tenant_id is not null;
create index job_history_type on worker.job_history (job_type, id);
create index job_history_finished on worker.job_history (finished_at);
create index job_history_status on worker.job_history (status, id) where status <> 'completed';
create view worker.jobs as select * from worker.job_queue union all select * from worker.job_history;
