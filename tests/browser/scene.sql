-- An ordinary evening of a queue, for eyes: what was done, what failed, what waits and why. Times hang on now().
set session_replication_role = replica;  -- rows as they are found later, without the triggers of their insert

insert into worker.process (id, host, pid, version, types, slots, lease, started_at, beat_at, lease_until)
overriding system value values
  (1, 'app-1', 4101, '0.1.0', '{stats_update,invalidate_cache,send_receipt,resize_image,sync_orders}', 20, '1 hour',
   now() - interval '3 days', now(), now() + interval '1 hour'),
  (2, 'app-2', 977, '0.1.0', '{stats_update,invalidate_cache,send_receipt,resize_image,sync_orders}', 20, '1 hour',
   now() - interval '5 hours', now() - interval '300 ms', now() + interval '1 hour');
select setval('worker.process_id_seq', 2);

create function pg_temp.job(id bigint, job_type text, status text, made interval, waited interval, ran interval, payload jsonb default '{}',
  tenant text default null, source text default null, attempt integer default 1, errors jsonb default null, reason text default null,
  parent bigint default null, next interval default null, result jsonb default null) returns void language sql as $$
  insert into worker.job_queue (id, job_type, payload, status, queued, trouble, priority, scheduled_at, attempt, max_attempts,
    tenant_id, enqueued_by, correlation_id, source, claimed_by, batch, claim, errors, finish_reason, parent_id, created_at,
    started_at, finished_at, result, phase)
  overriding system value
  values (id, job_type, payload, status, status = 'pending', status in ('failed', 'cancelled'), 100,
    now() - made + coalesce(next, '0'), attempt, 5, tenant, 'app', 'c-' || md5(id::text), source,
    case when status <> 'pending' then 1 + id % 2 end, case when status <> 'pending' then 1 end, case when waited is not null then id end,
    errors, reason, parent, now() - made, now() - made + waited,
    case when status not in ('pending', 'running') then now() - made + coalesce(waited, '0') + coalesce(ran, '0') end, result,
    case when status = 'running' and job_type = 'sync_orders' then 'page 14 of 60' end);
$$;

create function pg_temp.step(job bigint, name text, status text, began interval, took interval, attempt integer default 1,
  claim bigint default null, error text default null) returns void language sql as $$
  insert into worker.job_step (job_id, name, status, attempt, claim, started_at, finished_at, error)
  select step.job, step.name, step.status, step.attempt, coalesce(step.claim, step.job), j.started_at + began, j.started_at + began + took, step.error
  from worker.job_queue j where j.id = job;
$$;

select pg_temp.job(n, (array['send_receipt', 'resize_image', 'send_receipt', 'sync_orders'])[1 + n % 4],
    case when n % 31 = 0 then 'skipped' when n % 57 = 0 then 'cancelled' else 'completed' end,
    make_interval(secs => 43200 - n * 140), make_interval(secs => 0.02 + n % 9 * 0.11), make_interval(secs => 0.05 + n % 17 * 0.13),
    '{}', 'club-' || n % 7, 'app', 1, null, case when n % 31 = 0 then 'no_op' end)
from generate_series(1, 300) n;

-- last night: payments' provider was away
select pg_temp.job(310 + n, 'send_receipt', 'failed', interval '9 hours' - n * interval '40 s', '80 ms', '31 s',
    jsonb_build_object('order', 'A-' || 4710 + n, 'to', 'customer' || n || '@example.org', 'api_token', 'tok-' || n), 'club-' || n % 3, 'app', 5,
    jsonb_build_array(
      jsonb_build_object('attempt', 4, 'at', now() - interval '9 hours', 'message', 'ConnectTimeout: mail.example.org:443 did not answer in 5 s'),
      jsonb_build_object('attempt', 5, 'at', now() - interval '9 hours' + interval '31 s', 'message', 'ConnectTimeout: mail.example.org:443 did not answer in 5 s')),
    'exhausted')
from generate_series(1, 6) n;

-- earlier stats updates, so that there is a usual
select pg_temp.job(330 + n, 'stats_update', 'completed', make_interval(secs => 7200 - n * 600), '240 ms', '1.9 s',
    '{"tenant_id": "1f0c7a52-6f0e-4a55-9d4e-0c8f5f6c2a11"}', '1f0c7a52-6f0e-4a55-9d4e-0c8f5f6c2a11', 'match', 1, null, null, null, null, '{"steps": 10}')
from generate_series(1, 8) n;
select pg_temp.step(330 + n, s.name, 'completed', s.began, s.took)
from generate_series(1, 8) n, (values
  ('half_and_full_season', interval '10 ms', interval '380 ms'), ('all_time', '12 ms', '300 ms'), ('personal_bests', '320 ms', '240 ms'),
  ('hall_of_fame', '400 ms', '160 ms'), ('match_report', '570 ms', '420 ms'), ('recent_performance', '600 ms', '180 ms'),
  ('season_honours', '1 s', '380 ms'), ('player_profile', '800 ms', '300 ms'), ('season_race', '1.1 s', '290 ms'),
  ('power_ratings', '1.4 s', '450 ms')) s (name, began, took);

-- one that was slow, of which a step failed and was done by the second attempt
select pg_temp.job(350, 'stats_update', 'completed', '18 min', '350 ms', '14.9 s',
    '{"tenant_id": "1f0c7a52-6f0e-4a55-9d4e-0c8f5f6c2a11", "match_id": 2041}', '1f0c7a52-6f0e-4a55-9d4e-0c8f5f6c2a11', 'match', 2,
    jsonb_build_array(jsonb_build_object('attempt', 1, 'at', now() - interval '18 min' + interval '4.4 s',
      'message', 'hall_of_fame: 55P03 canceling statement due to lock timeout')), null, null, null, '{"steps": 10}');
select pg_temp.step(350, s.name, 'completed', s.began, s.took, s.attempt, s.claim)
from (values
  ('half_and_full_season', interval '10 ms', interval '400 ms', 1, 349), ('all_time', '12 ms', '310 ms', 1, 349),
  ('personal_bests', '330 ms', '250 ms', 1, 349), ('match_report', '590 ms', '3.1 s', 1, 349), ('recent_performance', '430 ms', '210 ms', 1, 349),
  ('season_honours', '3.7 s', '390 ms', 1, 349), ('player_profile', '650 ms', '320 ms', 1, 349), ('season_race', '1 s', '300 ms', 1, 349),
  ('power_ratings', '1.4 s', '470 ms', 1, 349), ('hall_of_fame', '14.5 s', '380 ms', 2, 350)) s (name, began, took, attempt, claim);
select pg_temp.job(351, 'invalidate_cache', 'completed', '17 min', '20 ms', '140 ms',
    '{"tags": ["all_time_stats", "match_report"]}', '1f0c7a52-6f0e-4a55-9d4e-0c8f5f6c2a11', null, 1, null, null, 350, null, '{"status": 200}');
insert into worker.job_event (job_id, at, event, actor, detail) values
  (350, now() - interval '18 min', 'enqueued', 'app', '{"to": "pending", "source": "match"}'),
  (316, now() - interval '8 hours', 'retry', 'web:admin', '{"was": "failed", "reason": "exhausted", "attempt": 5}');

-- now: one runs, one failed a step, some wait
select pg_temp.job(360, 'stats_update', 'running', '4 s', '120 ms', null,
    '{"tenant_id": "1f0c7a52-6f0e-4a55-9d4e-0c8f5f6c2a11"}', '1f0c7a52-6f0e-4a55-9d4e-0c8f5f6c2a11', 'admin');
select pg_temp.step(360, s.name, s.status, s.began, s.took)
from (values ('half_and_full_season', 'completed', interval '10 ms', interval '390 ms'), ('all_time', 'completed', '12 ms', '320 ms'),
  ('personal_bests', 'completed', '340 ms', '260 ms'), ('recent_performance', 'completed', '420 ms', '190 ms'),
  ('match_report', 'running', '610 ms', null), ('hall_of_fame', 'running', '640 ms', null), ('player_profile', 'waiting', null, null),
  ('season_honours', 'waiting', null, null), ('season_race', 'waiting', null, null), ('power_ratings', 'waiting', null, null)) s (name, status, began, took);
select pg_temp.job(361, 'sync_orders', 'running', '95 s', '60 ms', null, '{"user": 12}', 'club-2', 'app');
select pg_temp.job(362, 'sync_orders', 'failed', '26 min', '50 ms', '2.2 s', '{"user": 14, "password": "hunter2"}', 'club-4', 'app', 1,
    jsonb_build_array(jsonb_build_object('attempt', 1, 'at', now() - interval '26 min',
    'message', E'Permanent: 401 the token counts no more\nThe user has to connect again.')), 'permanent');
select pg_temp.job(363, 'send_receipt', 'pending', '50 s', '30 ms', null, '{"order": "A-4801"}', 'club-1', 'app', 2,
    jsonb_build_array(jsonb_build_object('attempt', 2, 'at', now() - interval '8 s', 'message', 'HTTPStatusError: 503 from mail.example.org')), null, null, '90 s');
select pg_temp.job(363 + n, 'resize_image', 'pending', make_interval(secs => 100 - n * 3), null, null, jsonb_build_object('image', n), 'club-3', 'app')
from generate_series(1, 14) n;
select pg_temp.job(380 + n, 'old_import', 'pending', make_interval(secs => 7200 + n), null, null, '{}', null, 'app') from generate_series(1, 2) n;
select pg_temp.job(384, 'send_receipt', 'pending', '20 s', null, null, '{"order": "A-4802"}', 'club-1', 'app', 0, null, null, null, '5 hours');
update worker.job_queue set attempt = 0 where status = 'pending' and started_at is null;
update worker.job_type set paused = true where name = 'resize_image';
insert into worker.job_event (job_id, at, event, actor, detail) values (null, now() - interval '2 min', 'pause', 'web:admin', '{"job_type": "resize_image"}');
select setval('worker.job_queue_id_seq', 400), setval('worker.claim_seq', 400);

update worker.schedule set next_at = date_trunc('hour', now()) + interval '1 hour', last_at = date_trunc('hour', now()),
  fired_at = date_trunc('hour', now()) + interval '420 ms', last_jobs = 7, lateness = 0.42 where name = 'hourly_orders';
update worker.schedule set next_at = date_trunc('day', now()) + interval '26 hours', last_at = date_trunc('day', now()) + interval '2 hours',
  fired_at = date_trunc('day', now()) + interval '2 hours 1.2 s', last_jobs = 3, lateness = 1.2 where name = 'nightly_stats';

-- what daemons counted, in spans of five minutes
insert into worker.trend (job_type, at, completed, failed, again, other, waits, runs)
select t.name, date_bin('5 minutes', now() - n * interval '5 minutes', '2000-01-01'), c.completed,
  case when t.name = 'send_receipt' and n between 106 and 108 then 2 when t.name = 'sync_orders' and n = 5 then 1 else 0 end,
  case when t.name = 'send_receipt' and n between 104 and 110 then 9 when n % 23 = 3 then 1 else 0 end, case when n % 29 = 1 then 2 else 0 end,
  (select array_agg((c.completed * greatest(0, 6 - abs(b - t.wait - (n % 13 = 0)::integer * 3)) / 18)::integer order by b) from generate_series(1, 19) b),
  (select array_agg((c.completed * greatest(0, 6 - abs(b - t.run - (n % 72 between 30 and 36)::integer * 2)) / 18)::integer order by b) from generate_series(1, 19) b)
from (values ('stats_update', 6, 8, 13), ('invalidate_cache', 5, 4, 9), ('send_receipt', 40, 4, 10), ('resize_image', 25, 6, 11), ('sync_orders', 9, 5, 14))
  t (name, usual, wait, run)
cross join generate_series(0, 290) n
cross join lateral (select greatest(0, (t.usual * (1 + 0.6 * sin(n / 9.0)) + (n * 7 + length(t.name)) % 6)::integer) as completed) c;
