-- D: one table, two partitions by `final`. claim knows the live partition as job_queue; settle updates the parent.
alter table worker.job_queue add column final boolean not null default false;
create table worker.job_all (like worker.job_queue including defaults including identity including constraints) partition by list (final);
create table worker.job_done (like worker.job_queue including defaults including constraints) with (autovacuum_enabled = false);
alter table worker.job_all attach partition worker.job_queue for values in (false);
alter table worker.job_all attach partition worker.job_done for values in (true);
create index job_queue_running on worker.job_queue (claimed_by) where claimed_by is not null;
create unique index on worker.job_all (id, final);
create index on worker.job_all (tenant_id, id) where tenant_id is not null;
create index on worker.job_all (job_type, id);
create index on worker.job_done (finished_at);
create index on worker.job_done (status, id) where status <> 'completed';
create view worker.jobs as select * from worker.job_all;
