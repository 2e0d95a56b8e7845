-- Room in the indexes that every claim writes to. Ids ascend, so a page of theirs is filled once, by inserts, and then
-- gets one entry more for each of its jobs, when these are claimed: filled to nine tenths it is split just then, after a
-- vain search of dead entries. Half full the new ones fit; what the table's own fillfactor is for its rows.

set local role worker_owner;

alter index worker.job_queue_pkey set (fillfactor = 50);
alter index worker.job_queue_by_type set (fillfactor = 50);

reset role;
