select count(*) from worker.job_queue where finished_at is null
