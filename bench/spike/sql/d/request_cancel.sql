update worker.job_all set cancel_requested_at = now() where id = $1
