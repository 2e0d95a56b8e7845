select id, job_type, tenant_id, finished_at, finish_reason from worker.jobs where status = 'failed' order by id desc limit 50
