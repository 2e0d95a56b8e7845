-- One page of old completed rows by finished_at; $1, the cursor of the other variants, is not needed.
with page as materialized (
    select q.ctid, q.id from worker.job_history q
     where q.finished_at < $2::timestamptz and q.status = 'completed' and $1::bigint is not null
     order by q.finished_at limit 5000
), gone as (
    delete from worker.job_history q where q.ctid = any(array(select page.ctid from page))
)
select max(id) as last, count(*) as gone, count(*) = 5000 as more from page
