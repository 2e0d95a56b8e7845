-- A queue with a history: so many rows of twenty types and five hundred tenants, most of them done, one in ten pending.

create function bench.history(jobs bigint) returns void language plpgsql as $$
begin
  perform set_config('session_replication_role', 'replica', true);  -- rows as they are found later
  perform worker.declare((select jsonb_agg(jsonb_build_object('name', 'type_' || n, 'digest', 'd' || n)) from generate_series(0, 19) n));
  insert into worker.process (id, host, pid, version, types, slots, lease, started_at, beat_at, lease_until, open_batch)
  overriding system value
  select n, 'host-' || n, 1000 + n, '0', array(select 'type_' || i from generate_series(0, 19) i), 50, '30 s',
    now() - interval '2 days', now(), now() + interval '1 day', 1000000000
  from generate_series(1, 4) n;
  insert into worker.job_queue (id, job_type, payload, status, queued, trouble, priority, scheduled_at, attempt, max_attempts,
    tenant_id, enqueued_by, correlation_id, source, claimed_by, batch, claim, errors, finish_reason, created_at, started_at, finished_at)
  overriding system value
  select n, 'type_' || n % 20, jsonb_build_object('n', n, 'text', repeat('x', (n % 200)::integer)), s, s = 'pending', s in ('failed', 'cancelled'),
    100, t + case when s = 'pending' and n % 3 = 0 then interval '3 days' else '0' end, case when s = 'pending' then 0 else 1 end, 5,
    'tenant-' || n % 500, 'app', 'c-' || md5(n::text), case when n % 2 = 0 then 'admin' else 'match' end,
    case when s <> 'pending' then 1 + n % 4 end, case when s = 'running' then 1000000001 when s <> 'pending' then n / 50 end,
    case when s <> 'pending' then n end,
    case when s = 'failed' then jsonb_build_array(jsonb_build_object('attempt', 1, 'at', t, 'message', 'ValueError: number ' || n)) end,
    case when s = 'failed' then 'exhausted' end, t, case when s <> 'pending' then t + interval '1 s' end,
    case when s not in ('pending', 'running') then t + interval '3 s' end
  from (
    select n, now() - (jobs - n) * interval '150 ms' as t,
      case when n > jobs - 150 then 'running' when n > jobs * 9 / 10 then 'pending' when n % 50 = 0 then 'failed'
        when n % 77 = 0 then 'cancelled' when n % 13 = 0 then 'skipped' else 'completed' end as s
    from generate_series(1, jobs) n) x;
  perform setval('worker.job_queue_id_seq', jobs), setval('worker.claim_seq', jobs);
  insert into worker.trend (job_type, at, completed, failed, again, other, waits, runs)
  select 'type_' || t, date_bin('5 minutes', now() - n * interval '5 minutes', '2000-01-01'), 50, t % 2, 1, 1,
    array_fill(3, array[19]), array_fill(3, array[19])
  from generate_series(0, 19) t, generate_series(0, 2015) n;
end
$$;
