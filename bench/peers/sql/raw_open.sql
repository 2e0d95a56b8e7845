select count(*) from raw_job where finished_at is null
