-- For everybody who may produce. These run with the caller's rights: the table's grants and policies decide.

create or replace function worker.enqueue(
  job_type        text,
  payload         jsonb default '{}',
  scheduled_at    timestamptz default null,
  delay           interval default null,
  priority        integer default null,
  unique_key      text default null,
  on_conflict     text default null,
  concurrency_key text default null,
  tenant_id       text default null,
  max_attempts    integer default null,
  expires_at      timestamptz default null,
  correlation_id  text default null,
  source          text default null
) returns bigint
language plpgsql
as $$
declare
  job_id bigint;
begin
  if pg_catalog.current_setting('worker.holder', true) <> '' then
    perform pg_catalog.set_config('worker.holder', '', true);
  end if;
  for round in 1..3 loop
    insert into worker.job_queue as j (job_type, payload, scheduled_at, priority, unique_key, on_conflict,
      concurrency_key, tenant_id, max_attempts, expires_at, correlation_id, traceparent, source)
    values (enqueue.job_type, coalesce(enqueue.payload, '{}'),
      case when enqueue.delay is null then enqueue.scheduled_at  -- null: the trigger knows the time
           else coalesce(enqueue.scheduled_at, worker.now()) + enqueue.delay end, enqueue.priority,
      enqueue.unique_key, enqueue.on_conflict, enqueue.concurrency_key, enqueue.tenant_id, enqueue.max_attempts,
      enqueue.expires_at, enqueue.correlation_id,
      nullif(pg_catalog.current_setting('worker.traceparent', true), ''), enqueue.source)
    on conflict do nothing
    returning j.id into job_id;
    if job_id is null then
      -- The trigger met a holder and says which; or the unique index met one that was still uncommitted when the
      -- statement began: then the next round's trigger sees it.
      job_id := nullif(pg_catalog.current_setting('worker.holder', true), '');
    end if;
    if job_id is not null then
      return job_id;
    end if;
  end loop;
  raise exception 'the unique key of % is held by a job that this transaction cannot see', enqueue.job_type
    using errcode = '40001', hint = 'Repeat the transaction, or use isolation level read committed.';
end
$$;
comment on function worker.enqueue(text, jsonb, timestamptz, interval, integer, text, text, text, text, integer, timestamptz, text, text) is
  'Enqueues one job; answers with its id, or the id of the job that already holds its unique key (keep, replace). Everything left out comes from the declared type';

-- A view that has no rows: one INSERT into it is many jobs of one type. Here the column enqueued_by tells a function of
-- the owner who its caller is, as it does in the queue; an argument could be forged (docs/decisions/0014). Made once:
-- to make it again would lock it, and a migration must lock nothing that producers lock before worker.job_queue.
do $$
begin
  if to_regclass('worker.bulk') is null then
    create view worker.bulk as
    select null::text as job_type, null::jsonb[] as payloads, null::integer as priority, null::text as traceparent,
      null::text as source, null::text as enqueued_by, null::bigint as added
    where false;
    alter view worker.bulk alter column enqueued_by set default current_user;
    grant insert (job_type, payloads, priority, traceparent, source), select (added) on worker.bulk
      to worker_enqueue, worker_tenant;
  end if;
end
$$;
comment on view worker.bulk is 'What worker.enqueue_many inserts into: many jobs of one type in one row; added says how many, null that it was not for this way';

create or replace function worker.insert_many() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  -- Of the columns' own types, so that bounds are tested here once, and not again for each row.
  kind worker.type_name;
  rank worker.rank := new.priority;
  tries worker.tries;
  instant worker.instant := worker.now();
  expiry worker.instant;
  trace worker.short_text := new.traceparent;
  origin worker.short_text := new.source;
  who text := new.enqueued_by;
  held_while text;
  declared worker.job_type;
  job worker.job_queue;
  acting text := worker.tenant_of(new.enqueued_by);
  is_app boolean := pg_has_role(new.enqueued_by, 'worker_enqueue', 'member');
  admitted record;
  stem text := left(gen_random_uuid()::text, 24);  -- ids of one call differ in their end: drawing each is a third of all
  start bigint := x'800000000000'::bigint + (random() * x'400000000000'::bigint)::bigint;
begin
  select * into declared from worker.job_type t where t.name = new.job_type;
  -- Keys are met, shares counted, and follow-ups find their parent, row by row.
  if coalesce(declared.unique_key, declared.concurrency_key, declared.coalesce_key, declared.limits -> 'rate' ->> 'key',
              declared.backlog ->> 'per_tenant') is not null or who = 'worker_owner' then
    return new;
  end if;
  new.added := 0;
  if coalesce(cardinality(new.payloads), 0) = 0 then
    return new;
  end if;
  if not is_app then
    job.job_type := new.job_type;
    job.priority := rank;
    job.source := origin;
    perform worker.check_tenant(job, declared.producers);
  end if;
  if acting is not null or not is_app then
    perform worker.check_whose(coalesce(p ->> 'tenant_id', acting), p ->> 'tenant_id', acting, is_app)
    from unnest(new.payloads) p;
  end if;
  kind := new.job_type;
  rank := coalesce(rank, declared.priority, 100::smallint);
  tries := coalesce(declared.max_attempts, 5::smallint);
  expiry := instant + declared.expires;
  held_while := coalesce(declared.unique_while, 'waiting');
  if declared.audit then
    perform set_config('worker.audit', 'on', true);  -- worker.note_insert is called for it
  end if;
  admitted := worker.admit(kind, declared.backlog, declared.limits, cardinality(new.payloads), true);
  insert into worker.job_queue (job_type, payload, tenant_id, correlation_id, created_at, scheduled_at, priority,
    max_attempts, expires_at, traceparent, source, enqueued_by, unique_while, fair)
  select kind, p, coalesce(p ->> 'tenant_id', acting), stem || to_hex(start + n), instant,
    case when n > admitted.on_time then instant + admitted.later else instant end, rank, tries, expiry,
    trace, origin, who, held_while, coalesce(declared.fair, false)
  from unnest(new.payloads) with ordinality as p (p, n);
  get diagnostics new.added = row_count;
  return new;
end
$$;
comment on function worker.insert_many() is
  'Trigger: inserts the many jobs of a row of worker.bulk with what worker.before_insert would fill; not those of types with keys';

do $$
begin
  if not exists (select from pg_trigger where tgrelid = 'worker.bulk'::regclass and tgname = 'insert_many') then
    create trigger insert_many instead of insert on worker.bulk for each row execute function worker.insert_many();
  end if;
end
$$;

create or replace function worker.enqueue_many(job_type text, payloads jsonb[], priority integer default null,
  source text default null) returns bigint
language plpgsql
as $$
declare
  traceparent text := nullif(pg_catalog.current_setting('worker.traceparent', true), '');
  added bigint;
  given jsonb;
begin
  insert into worker.bulk as b (job_type, payloads, priority, traceparent, source)
  values (enqueue_many.job_type, enqueue_many.payloads, enqueue_many.priority, traceparent, enqueue_many.source)
  returning b.added into added;
  if added is not null then
    return added;
  end if;
  if not exists (select from worker.job_type t where t.name = enqueue_many.job_type and t.unique_key is not null) then
    insert into worker.job_queue (job_type, payload, priority, traceparent, source)
    select enqueue_many.job_type, p.payload, enqueue_many.priority, traceparent, enqueue_many.source
    from pg_catalog.unnest(payloads) as p (payload);
    get diagnostics added = row_count;
    return added;
  end if;
  added := 0;
  -- One transaction that takes many unique keys must take them in one order, or two of them deadlock. One by one,
  -- because a holder that commits while we wait for it has to be met, not passed over.
  for given in
    select p.payload from pg_catalog.unnest(payloads) as p (payload)
    order by worker.unique_key_of(enqueue_many.job_type, p.payload)
  loop
    perform worker.enqueue(enqueue_many.job_type, given, priority => enqueue_many.priority, source => enqueue_many.source);
    added := added + (coalesce(pg_catalog.current_setting('worker.holder', true), '') = '')::integer;
  end loop;
  return added;
end
$$;
comment on function worker.enqueue_many(text, jsonb[], integer, text) is
  'Enqueues many jobs of one type, in the order of their unique keys; answers with how many rows were added (kept and replaced ones are not)';

create or replace function worker.unique_key_of(job_type text, payload jsonb) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
  template text;
  job worker.job_queue;
begin
  select t.unique_key into template from worker.job_type t where t.name = unique_key_of.job_type;
  if template is null then
    return null;
  end if;
  job.payload := unique_key_of.payload;
  job.job_type := unique_key_of.job_type;
  job.tenant_id := case when jsonb_typeof(unique_key_of.payload) = 'object' then unique_key_of.payload ->> 'tenant_id' end;
  return concat(job.tenant_id, ' ', worker.fill(template, job));
end
$$;
comment on function worker.unique_key_of(text, jsonb) is 'Tenant and unique key that a payload of a type would hold: the order in which enqueue_many inserts';

create or replace function worker.cancel(id bigint, reason text default null) returns text
language plpgsql
as $$
declare
  now_status text;
begin
  update worker.job_queue j
  set cancel_requested_at = worker.now(), cancel_reason = cancel.reason
  where j.id = cancel.id and j.status in ('pending', 'running')
  returning j.status into now_status;
  if now_status is null then
    select j.status into now_status from worker.job_queue j where j.id = cancel.id and j.finished_at is not null;
  end if;
  if now_status is null then
    raise exception 'no job % that you may cancel', cancel.id
      using errcode = 'WK008', hint = 'Applications cancel their own pending jobs; worker_operate cancels any.';
  end if;
  return now_status;
end
$$;
comment on function worker.cancel(bigint, text) is
  'Cancels a job: a pending one at once (answer cancelled), a running one is asked and its SQL ended (answer running); a final one stays as it is (answer: its status)';
