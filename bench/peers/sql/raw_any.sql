select count(*) from (select from raw_job where finished_at is null order by id desc limit 1) newest
