select id, status, job_type, created_at, finished_at from worker.jobs where tenant_id = 'tenant_3' order by id desc limit 50
