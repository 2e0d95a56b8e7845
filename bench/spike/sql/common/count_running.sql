select job_type, count(*) from worker.job_queue where status = 'running' group by job_type
