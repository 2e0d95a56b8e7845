select id, status, tenant_id, created_at, finished_at from worker.jobs where job_type = 'type_3' order by id desc limit 50
