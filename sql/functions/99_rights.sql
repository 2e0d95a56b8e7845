-- Who may do what. Applied anew whenever a function changes.

revoke all on all functions in schema worker from public;
-- Nobody may build upon our types: an operator for one of them would be found before Postgres's own.
revoke usage on type worker.type_name, worker.document, worker.instant, worker.rank, worker.tries, worker.key_text,
  worker.short_text, worker.claimed, worker.verdict from public;
grant execute on function worker.now(), worker.tenant_of(name), worker.current_tenant() to public;

grant execute on function
  worker.enqueue(text, jsonb, timestamptz, interval, integer, text, text, text, text, integer, timestamptz, text, text),
  worker.enqueue_many(text, jsonb[], integer, text), worker.unique_key_of(text, jsonb)
to worker_enqueue, worker_tenant;
grant execute on function worker.cancel(bigint, text) to worker_enqueue, worker_operate;

grant insert (job_type, payload, scheduled_at, priority, unique_key, on_conflict, concurrency_key, tenant_id, max_attempts,
  expires_at, correlation_id, traceparent, source) on worker.job_queue to worker_enqueue, worker_tenant;
grant select on worker.clock, worker.bell to public;  -- worker.now() runs with its caller's rights
grant select on worker.job_queue, worker.job_step, worker.job_type to worker_enqueue, worker_tenant, worker_read;
grant select on worker.job_event, worker.process, worker.backend, worker.asleep, worker.key_slot to worker_read;
grant update (cancel_requested_at, cancel_reason) on worker.job_queue to worker_enqueue, worker_operate;
grant select on worker.jobs, worker.job_stats to worker_enqueue, worker_tenant, worker_read;
grant select on worker.type_status to worker_read;
grant select on worker.migration to worker_run, worker_read;

grant execute on function
  worker.declare(jsonb), worker.claim(bigint, bigint, text[], integer),
  worker.claim(bigint, bigint, text[], integer, jsonb), worker.unclaim(bigint, bigint),
  worker.complete(bigint, bigint[], bigint[]), worker.settle(bigint, worker.verdict[]), worker.settled(bigint, worker.verdict[]),
  worker.step_open(bigint, bigint, text, text, text), worker.step_close(bigint, bigint, text, text, text, timestamptz, text[], jsonb),
  worker.run_step(bigint, bigint, text, text, text, jsonb, text, text[]), worker.step_call(text, text[]), worker.step_argument(text, oid), worker.visible_functions(text),
  worker.begin_steps(bigint, bigint, text[]), worker.step_began(bigint, bigint, text, double precision),
  worker.step_failed(bigint, bigint, text, text, double precision),
  worker.progress(bigint, bigint, text, jsonb), worker.register(text, integer, text, text[], integer, interval, boolean),
  worker.register_backend(bigint, text), worker.note_backend(bigint, integer, timestamptz, text), worker.beat(bigint, bigint),
  worker.beat_and_look(bigint, bigint, text[]), worker.chores(text[]),
  worker.leave(bigint), worker.suspects(bigint), worker.declare_dead(bigint, bigint), worker.mark_dead(bigint, bigint),
  worker.end_backends(bigint), worker.stop_backend(integer, timestamptz, boolean), worker.rescue(bigint, bigint, integer),
  worker.sleep(bigint, double precision), worker.wake(bigint), worker.test_ring(text), worker.rings(), worker.sweep()
to worker_run;

-- Row-level security. The owner is subject to it too (forced), so every right is a policy that can be read.
alter table worker.job_queue enable row level security;
alter table worker.job_queue force row level security;
alter table worker.job_step enable row level security;
alter table worker.job_step force row level security;

drop policy if exists owner_all on worker.job_queue;
create policy owner_all on worker.job_queue to worker_owner using (true) with check (true);
drop policy if exists read_all on worker.job_queue;
create policy read_all on worker.job_queue for select to worker_read using (true);
drop policy if exists operate_all on worker.job_queue;
create policy operate_all on worker.job_queue for update to worker_operate using (true) with check (true);

drop policy if exists enqueue_insert on worker.job_queue;
create policy enqueue_insert on worker.job_queue for insert to worker_enqueue
  with check ((select worker.current_tenant()) is null or tenant_id = (select worker.current_tenant()));
drop policy if exists enqueue_own on worker.job_queue;
create policy enqueue_own on worker.job_queue for select to worker_enqueue
  using (enqueued_by = current_user and ((select worker.current_tenant()) is null or tenant_id = (select worker.current_tenant())));
drop policy if exists enqueue_cancel on worker.job_queue;
create policy enqueue_cancel on worker.job_queue for update to worker_enqueue
  using (enqueued_by = current_user and status = 'pending'
    and ((select worker.current_tenant()) is null or tenant_id = (select worker.current_tenant())))
  with check (enqueued_by = current_user);

drop policy if exists tenant_insert on worker.job_queue;
create policy tenant_insert on worker.job_queue for insert to worker_tenant
  with check (tenant_id = (select worker.current_tenant()));
drop policy if exists tenant_own on worker.job_queue;
create policy tenant_own on worker.job_queue for select to worker_tenant
  using (tenant_id = (select worker.current_tenant()));

drop policy if exists owner_all on worker.job_step;
create policy owner_all on worker.job_step to worker_owner using (true) with check (true);
drop policy if exists read_all on worker.job_step;
create policy read_all on worker.job_step for select to worker_read using (true);
drop policy if exists by_job on worker.job_step;
create policy by_job on worker.job_step for select to worker_enqueue, worker_tenant
  using (exists (select from worker.job_queue j where j.id = job_id));
