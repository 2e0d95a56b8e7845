-- One page of the primary key after id $1: delete what is completed and older than $2.
-- Answers the last id seen, how many went, and whether rows this old may follow.
with page as materialized (
    select q.ctid, q.id, q.created_at, q.status = 'completed' and q.finished_at < $2::timestamptz as old
      from worker.job_queue q
     where q.id > $1
     order by q.id limit 5000
), gone as (
    delete from worker.job_queue q where q.ctid = any(array(select page.ctid from page where page.old))
)
select max(id) as last, count(*) filter (where old) as gone, coalesce(max(created_at) < $2::timestamptz, false) as more from page
