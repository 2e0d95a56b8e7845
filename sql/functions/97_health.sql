-- How the queue is: what gauges and readiness are made of. Read every few seconds by every daemon, so nothing here scans
-- finished rows: pending ones are counted in the due and parked indexes, running ones found by the processes that hold them.

create or replace view worker.queue_depth with (security_invoker = true) as
select
  c.job_type, t.name is not null as declared,
  sum(c.waiting + c.scheduled + c.parked)::bigint as pending,
  sum(c.waiting)::bigint as waiting, sum(c.scheduled)::bigint as scheduled, sum(c.parked)::bigint as parked,
  sum(c.running)::bigint as running,
  (select worker.now()) - min(c.due_at) as oldest_due,
  (select worker.now()) - min(c.began_at) as oldest_running
from (
  select q.job_type, count(*) filter (where q.scheduled_at <= (select worker.now())) as waiting,
    count(*) filter (where q.scheduled_at > (select worker.now())) as scheduled, 0 as parked, 0 as running,
    min(q.scheduled_at) filter (where q.scheduled_at <= (select worker.now())) as due_at, null::timestamptz as began_at
  from worker.job_queue q where q.queued group by q.job_type
  union all
  select q.job_type, 0, 0, count(*), 0, null, null
  from worker.job_queue q where q.parked group by q.job_type
  union all
  -- Of dead ones too, until they are emptied; a process that stopped in good order holds nothing.
  -- In the order of the index and bounded by what one process can hold: a plan that reads the table must not look cheap.
  select r.job_type, 0, 0, 0, count(*), null, min(r.started_at)
  from worker.process p
  cross join lateral (
    select j.job_type, j.started_at from worker.job_queue j
    where j.claimed_by = p.id and j.batch >= p.open_batch and j.status = 'running'
    order by j.batch limit 20000) r
  where p.stopped_at is null and p.emptied_at is null
  group by r.job_type) c
left join worker.job_type t on t.name = c.job_type
group by c.job_type, t.name;
comment on view worker.queue_depth is
  'Per type with rows not at their end: pending, of these waiting (due), scheduled and parked, running, age of the oldest due and the longest running row. Never looks at finished rows; the cheap sibling of worker.type_status';

create or replace function worker.oldest_transaction() returns interval
language sql stable
begin atomic
  -- Other users' sessions show their start to members of pg_read_all_stats only; prepared transactions to everybody.
  select coalesce(greatest(
    (select clock_timestamp() - min(a.xact_start) from pg_stat_activity a
     where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()),
    (select clock_timestamp() - min(f.prepared) from pg_prepared_xacts f where f.database = current_database())),
    interval '0');
end;
comment on function worker.oldest_transaction() is
  'Age of the oldest transaction of this database, open or prepared; other users'' sessions count for members of pg_read_all_stats';

create or replace function worker.oldest_transaction_by() returns text
language sql stable
begin atomic
  select held.by from (
    select a.xact_start as since, format('pid %s, %s, user %s, %s', a.pid,
      coalesce(nullif(a.application_name, ''), 'without a name'), a.usename, a.state) as by
    from pg_stat_activity a
    where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
      and a.xact_start is not null
    union all
    select f.prepared, format('prepared transaction %s, user %s', f.gid, f.owner)
    from pg_prepared_xacts f where f.database = current_database()) held
  order by held.since limit 1;
end;
comment on function worker.oldest_transaction_by() is
  'Who holds the oldest transaction of this database: while it is open no vacuum cleans up behind the queue, and claims read more and more';

create or replace view worker.process_states with (security_invoker = true) as
select count(*) filter (where r.dead_at is null and r.stopped_at is null and r.lease_until >= worker.now()) as alive,
  count(*) filter (where r.dead_at is null and r.stopped_at is null and r.lease_until < worker.now()) as silent,
  count(*) filter (where r.dead_at > worker.now() - interval '1 hour') as dead,
  count(*) filter (where r.dead_at is not null and r.emptied_at is null) as unrescued
from worker.process r;
comment on view worker.process_states is
  'One row: processes alive, silent (lease lapsed), dead within the hour, dead with jobs still to be rescued';

create or replace view worker.table_sizes with (security_invoker = true) as
select s.relname::text as name, s.n_live_tup as rows, s.n_dead_tup as dead,
  pg_table_size(s.relid) as bytes, pg_indexes_size(s.relid) as index_bytes
from pg_stat_all_tables s
where s.relid in ('worker.job_queue'::regclass, 'worker.job_step'::regclass, 'worker.job_event'::regclass);
comment on view worker.table_sizes is
  'The tables that grow with the jobs: live and dead rows as the statistics have them, bytes of the table and of its indexes';

create or replace view worker.queue_health with (security_invoker = true) as
select
  d.pending, d.waiting, d.scheduled, d.parked, d.running, d.undeclared, d.oldest_due, d.oldest_running,
  p.alive as processes_alive, p.silent as processes_silent, p.dead as processes_dead, p.unrescued as processes_unrescued,
  worker.oldest_transaction() as oldest_transaction,
  pg_notification_queue_usage() as notification_queue_use,
  worker.oldest_transaction_by() as oldest_transaction_by
from (
  select coalesce(sum(q.pending), 0)::bigint as pending, coalesce(sum(q.waiting), 0)::bigint as waiting,
    coalesce(sum(q.scheduled), 0)::bigint as scheduled, coalesce(sum(q.parked), 0)::bigint as parked,
    coalesce(sum(q.running), 0)::bigint as running,
    coalesce(sum(q.pending) filter (where not q.declared), 0)::bigint as undeclared,
    max(q.oldest_due) as oldest_due, max(q.oldest_running) as oldest_running
  from worker.queue_depth q) d
cross join worker.process_states p;
comment on view worker.queue_health is
  'One row: jobs by state, pending ones of undeclared types, oldest due and longest running; processes alive, silent (lease lapsed), dead within the hour, dead with jobs still to be rescued; oldest transaction of the database, prepared ones too; share of the notification queue in use (0 to 1); who holds that transaction';

create or replace function worker.health() returns jsonb
-- Where statistics say that most rows are pending, or nothing, the whole table looks cheaper than the index of due ones.
language sql stable set enable_seqscan = off set jit = off
begin atomic
  select jsonb_build_object(
    'oldest_transaction', extract(epoch from worker.oldest_transaction()),
    'oldest_transaction_by', worker.oldest_transaction_by(),
    'notification_queue', pg_notification_queue_usage(),
    'processes', (select to_jsonb(p) from worker.process_states p),
    'schedules', (
      select coalesce(jsonb_agg(jsonb_build_object('name', s.name, 'failures', s.failures,
        'late', case when not s.paused then greatest(extract(epoch from worker.now() - s.next_at), 0) end)
        order by s.name), '[]')
      from worker.schedule s where s.enabled),
    'tables', (select jsonb_agg(to_jsonb(t)) from worker.table_sizes t),
    'types', (
      select coalesce(jsonb_agg(to_jsonb(d) order by d.job_type), '[]') from (
        -- What nobody declared is one type: there may be a hundred thousand of them.
        select case when q.declared then q.job_type else 'other' end as job_type, q.declared,
          sum(q.pending) as pending, sum(q.waiting) as waiting, sum(q.scheduled) as scheduled, sum(q.parked) as parked,
          sum(q.running) as running, extract(epoch from max(q.oldest_due)) as oldest_due,
          extract(epoch from max(q.oldest_running)) as oldest_running
        from worker.queue_depth q group by 1, 2) d));
end;
comment on function worker.health() is
  'What gauges are sampled from, in one answer: worker.queue_depth (undeclared types together as "other"), the oldest transaction, processes, schedules that are on, tables and the notification queue; spans in seconds';

create or replace function worker.profile() returns jsonb
language sql stable
begin atomic
  select jsonb_build_object(
    'pid', pg_backend_pid(),
    'server', current_setting('server_version'),
    'role', current_user::text,
    'tls', coalesce((select s.ssl from pg_stat_ssl s where s.pid = pg_backend_pid()), false),
    'read_only', pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean,
    'sees_sessions', pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
    'synchronous_commit', current_setting('synchronous_commit'),
    'client_check', current_setting('client_connection_check_interval'));
end;
comment on function worker.profile() is
  'What the calling connection can do: server version, role, TLS, whether it only reads, sees other users'' sessions, notices a lost client; pid of the backend, which is not the client''s idea of it behind a pooler';

-- Rights.
revoke all on function worker.health(), worker.oldest_transaction(), worker.oldest_transaction_by(), worker.profile() from public;
grant select on worker.queue_depth, worker.queue_health, worker.process_states, worker.table_sizes to worker_read;
grant execute on function worker.health(), worker.oldest_transaction(), worker.oldest_transaction_by() to worker_read;
grant execute on function worker.profile() to worker_run, worker_read;
