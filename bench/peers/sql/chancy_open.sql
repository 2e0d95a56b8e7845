select count(*) from chancy_jobs where state in ('pending', 'running', 'retrying')
