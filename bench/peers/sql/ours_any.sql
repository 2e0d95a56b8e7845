select count(*) from (select from worker.job_queue where finished_at is null order by id desc limit 1) newest
