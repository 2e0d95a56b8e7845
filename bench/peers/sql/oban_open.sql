select count(*) from oban_jobs where state in ('available', 'scheduled', 'executing', 'retryable')
