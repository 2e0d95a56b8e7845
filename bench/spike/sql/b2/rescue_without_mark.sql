select id from worker.job_queue where claimed_by = 7 and status = 'running' order by id for no key update skip locked
