select q.id
  from worker.job_queue q
 where q.claimed_by = 7 and q.batch >= (select p.open_batch from worker.process p where p.id = 7) and q.status = 'running'
 order by q.id for no key update skip locked
