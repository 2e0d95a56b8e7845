truncate worker.job_all, worker.key_slot
