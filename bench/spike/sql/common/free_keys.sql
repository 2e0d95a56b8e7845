-- Free the slots of settled jobs, then un-park the first row of each line in a new snapshot.
create function worker.free_keys(keys text[], owners bigint[]) returns void language plpgsql as $$
begin
    perform from worker.key_slot s where s.key = any(keys) order by s.key for update;
    delete from worker.key_slot s where s.key = any(keys) and s.job_id = any(owners);
    update worker.job_queue q
       set queued = true, parked = false
      from unnest(keys) k
     cross join lateral (
           select p.ctid from worker.job_queue p
            where p.parked and p.concurrency_key = k
            order by p.priority, p.scheduled_at, p.id
            limit 1 for no key update skip locked) head
     where q.ctid = head.ctid;
end $$;
