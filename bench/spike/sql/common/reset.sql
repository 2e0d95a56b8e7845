truncate worker.job_queue, worker.key_slot
