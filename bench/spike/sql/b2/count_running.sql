-- Running rows belong to a process: look from its lowest open batch on. OFFSET 0 keeps the planner from joining the whole table.
select r.job_type, count(*)
  from worker.process p
 cross join lateral (
       select q.job_type from worker.job_queue q
        where q.claimed_by = p.id and q.batch >= p.open_batch and q.status = 'running' offset 0) r
 group by r.job_type
