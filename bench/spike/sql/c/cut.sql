-- When the row number $1 of the finished ones ended.
select finished_at from worker.job_history where finished_at is not null order by finished_at offset $1 limit 1
