update worker.job_queue set cancel_requested_at = now() where id = $1
