truncate worker.job_queue, worker.job_history, worker.key_slot
