-- The queue itself. One row a job, from insert to the end and on until it is pruned (docs/decisions/0001).
--
-- A pending row is either queued (in the due index) or parked (due, but behind its concurrency key); a running or
-- final row is neither. Index predicates name these two flags and trouble, never status, and no indexed column changes
-- when a job completes, so that the usual settle is a heap-only update.

set local role worker_owner;

-- Bounds of what a producer may write, as domains: they are tested where a value is made, not again by every claim and
-- settle (as CHECKs of the table they cost a fifth of both, docs/decisions/0001). A domain is tested before any trigger.
create domain worker.type_name as text
  constraint job_type_is_a_lower_case_name check (value ~ '^[a-z][a-z0-9_]{0,62}$');
create domain worker.document as jsonb
  constraint payload_is_at_most_65536_bytes check (octet_length(value::text) <= 65536);
create domain worker.instant as timestamptz
  constraint time_is_between_2000_and_9000 check (value between '2000-01-01 00:00+00' and '9000-01-01 00:00+00');
create domain worker.rank as smallint
  constraint priority_is_between_0_and_1000 check (value between 0 and 1000);
create domain worker.tries as smallint
  constraint max_attempts_is_between_1_and_10000 check (value between 1 and 10000);
create domain worker.key_text as text
  constraint key_is_at_most_500_bytes check (octet_length(value) <= 500);
create domain worker.short_text as text
  constraint text_is_at_most_200_bytes check (octet_length(value) <= 200);

create table worker.job_type (
  name            text primary key check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  priority        smallint not null default 100 check (priority between 0 and 1000),
  max_attempts    smallint not null default 5 check (max_attempts between 1 and 10000),
  unique_key      text,
  unique_while    text not null default 'waiting' check (unique_while in ('waiting', 'active')),
  on_conflict     text not null default 'keep' check (on_conflict in ('keep', 'refuse', 'replace')),
  concurrency_key text,
  coalesce_key    text,
  then_types      text[] not null default '{}',
  then_failed     text[] not null default '{}',
  announces       text check (announces in ('tags', 'result')),
  fallback        boolean not null default false,
  expires         interval check (expires > interval '0'),
  deadline        interval check (deadline > interval '0'),
  limits          jsonb,
  backlog         jsonb,
  producers       text[] not null default '{app}' check (producers <@ '{app,tenant}'),
  sources         jsonb not null default '{}',
  enabled         boolean not null default true,
  paused          boolean not null default false,
  audit           boolean not null default false,
  digest          text,
  declared_at     timestamptz not null default clock_timestamp()
);
comment on table worker.job_type is 'Job types as declared in worker.toml; written by worker.declare, but for paused, which is the operators''';

create sequence worker.claim_seq as bigint;
comment on sequence worker.claim_seq is 'Claim numbers: one for each claim of a row, never used twice';

create table worker.job_queue (
  id                  bigint generated always as identity primary key,
  job_type            worker.type_name not null,
  payload             worker.document not null default '{}',
  status              text not null default 'pending'
                      check (status in ('pending', 'running', 'completed', 'skipped', 'failed', 'cancelled')),
  queued              boolean not null default true,
  parked              boolean not null default false,
  trouble             boolean not null default false,
  coalesced           boolean not null default false,
  priority            worker.rank not null,
  scheduled_at        worker.instant not null,
  attempt             integer not null default 0,
  max_attempts        worker.tries not null,
  unique_key          worker.key_text,
  unique_while        text,
  held_key            text,
  on_conflict         text check (on_conflict in ('keep', 'refuse', 'replace')),
  concurrency_key     worker.key_text,
  tenant_id           worker.short_text,
  enqueued_by         text not null default current_user,
  correlation_id      worker.short_text not null,
  traceparent         worker.short_text,
  source              worker.short_text,
  parent_id           bigint,
  claimed_by          bigint,
  batch               bigint,
  claim               bigint,
  cancel_requested_at timestamptz,
  cancel_reason       text check (octet_length(cancel_reason) <= 1000),
  rescues             integer not null default 0,
  snoozes             integer not null default 0,
  phase               worker.short_text,
  progress            jsonb,
  result              jsonb,
  errors              jsonb,
  finish_reason       text,
  expires_at          worker.instant,
  deadline_at         timestamptz,
  created_at          timestamptz not null,
  started_at          timestamptz,
  finished_at         timestamptz,
  constraint pending_is_queued_or_parked check ((status = 'pending') = (queued or parked) and not (queued and parked)),
  constraint final_is_finished check ((finished_at is not null) = (status not in ('pending', 'running'))),
  constraint trouble_is_failed_or_cancelled check (trouble = (status in ('failed', 'cancelled'))),
  constraint running_is_claimed check (status <> 'running' or (claim is not null and started_at is not null))
)
-- A row is written three times: inserted, claimed, settled. Room on its page spares new pages and lets the settle touch
-- no index (HOT): at 70 a settle cost half as much again. Index entries of dead versions are what a claim reads past:
-- vacuum comes when 2 % are dead, and does not pause.
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

comment on table worker.job_queue is 'One row a job. Insert (job_type, payload) and it happens; read it through the view worker.jobs';
comment on column worker.job_queue.held_key is 'The unique key while this row holds it: until the first claim (unique_while = waiting) or the end (active)';
comment on column worker.job_queue.trouble is 'Failed or cancelled: what the list of troubles is indexed by';
comment on column worker.job_queue.coalesced is 'Its concurrency key is that of a coalescing type: the claim that gets the key takes the others with it';
comment on column worker.job_queue.on_conflict is 'Only said at insert: what to do when the unique key is held; null = as the type declares; kept empty';
comment on column worker.job_queue.enqueued_by is 'Who inserted the row; granted to nobody, so it cannot be forged';

create index job_queue_due on worker.job_queue (job_type, priority, scheduled_at, id) where queued;
create index job_queue_parked on worker.job_queue (concurrency_key, priority, scheduled_at, id) where parked;
create index job_queue_coalesced on worker.job_queue (concurrency_key, id) where coalesced and (queued or parked);
create unique index job_queue_held on worker.job_queue (job_type, held_key, tenant_id) nulls not distinct where held_key is not null;
create index job_queue_stop on worker.job_queue (claimed_by) where cancel_requested_at is not null;
create index job_queue_expiry on worker.job_queue (expires_at) where (queued or parked) and expires_at is not null;
create index job_queue_by_process on worker.job_queue (claimed_by, batch) where claimed_by is not null;
create index job_queue_trouble on worker.job_queue (id) where trouble;
create index job_queue_by_type on worker.job_queue (job_type, id);
create index job_queue_by_tenant on worker.job_queue (tenant_id, id) where tenant_id is not null;
create index job_queue_by_parent on worker.job_queue (parent_id) where parent_id is not null;

create table worker.kept (
  id          bigint generated always as identity primary key,
  job_id      bigint not null,
  enqueued_by name not null
);
create index kept_by_job on worker.kept (job_id);
comment on table worker.kept is 'Notes left by an enqueue that was answered with a job already waiting; a note that outlives the start of its job becomes a job of its enqueuer (docs/decisions/0005)';

create table worker.job_step (
  job_id      bigint not null references worker.job_queue on delete cascade,
  name        text not null check (octet_length(name) <= 100),
  status      text not null check (status in ('waiting', 'running', 'completed', 'failed')),
  attempt     integer not null default 0,
  claim       bigint not null,
  started_at  timestamptz,
  finished_at timestamptz,
  error       text,
  tags        text[] not null default '{}',
  announced   boolean not null default false,
  result      jsonb,
  primary key (job_id, name)
)
-- No index covers what changes, so with room on the page a step's updates touch none (HOT).
with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
comment on table worker.job_step is 'Steps of jobs. completed is the mark, written in the step''s own transaction; waiting and running are for eyes only';

create unlogged table worker.step_lock (
  function text not null,
  key      text not null,
  primary key (function, key)
);
comment on table worker.step_lock is 'One row a (step function, concurrency key), locked while the step runs (docs/decisions/0003)';

create table worker.job_event (
  id     bigint generated always as identity primary key,
  job_id bigint,
  at     timestamptz not null default clock_timestamp(),
  event  text not null,
  actor  text not null default session_user,
  detail jsonb
);
create index job_event_by_job on worker.job_event (job_id, id);
comment on table worker.job_event is 'What a person or a rescue did to a job (to a type, where job_id is null); every transition for types with audit = true';

create table worker.process (
  id          bigint generated always as identity primary key,
  host        text not null,
  pid         integer not null,
  version     text not null,
  types       text[] not null default '{}',
  slots       integer not null default 0,
  pooled      boolean not null default false,
  timeline    text,
  lease       interval not null,
  started_at  timestamptz not null,
  beat_at     timestamptz not null,
  lease_until timestamptz not null,
  open_batch  bigint not null default 0,
  closed      bigint[] not null default '{}',
  stopped_at  timestamptz,
  dead_at     timestamptz,
  dead_by     bigint,
  emptied_at  timestamptz
)
-- One row, and it beats twice a second: its new version replaces the last one on the same page.
with (fillfactor = 50);
comment on table worker.process is 'One row a daemon: its lease, and whether it stopped or was declared dead, which is for ever';

comment on column worker.process.timeline is 'Of the server that registered it; on another one, a promoted standby, what the process remembers may never have happened';
comment on column worker.process.open_batch is 'Lowest claim call of which the process may still hold rows, told by its beat: older rows need not be looked at';

create table worker.backend (
  process_id    bigint not null references worker.process on delete cascade,
  pid           integer not null,
  backend_start timestamptz not null,
  duty          text not null check (duty in ('beat', 'control', 'step', 'listen')),
  primary key (process_id, pid, backend_start)
);
comment on table worker.backend is 'Connections of each daemon, so that a dead one''s statements can be ended';

create table worker.key_slot (
  key    text primary key,
  job_id bigint not null
)
-- Small and always changing: a share of its live rows says nothing, so vacuum counts the dead.
with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
comment on table worker.key_slot is 'Concurrency keys that are running now, each with the job that holds it';

create unlogged table worker.asleep (
  process_id bigint primary key,
  since      timestamptz not null,
  due        timestamptz not null,
  until      timestamptz not null
) with (fillfactor = 10);
comment on table worker.asleep is 'Daemons that want to be rung for rows due before their next look';

create sequence worker.bell as bigint;
comment on sequence worker.bell is 'The second of the epoch until which somebody may be asleep: the gate before the ring, read without a query';

create table worker.clock (
  one   boolean primary key default true check (one),
  at    timestamptz,
  shift interval not null default interval '0'
);
comment on table worker.clock is 'Tests only: its one row stops (at) or moves (shift) worker.now()';

create type worker.claimed as (
  id              bigint,
  job_type        text,
  payload         text,
  priority        smallint,
  attempt         integer,
  max_attempts    smallint,
  claim           bigint,
  tenant_id       text,
  correlation_id  text,
  traceparent     text,
  source          text,
  parent_id       bigint,
  concurrency_key text,
  rescues         integer,
  snoozes         integer,
  waited          double precision,
  remaining       double precision,
  counted         boolean
);
comment on type worker.claimed is 'A claimed row in narrow, safe values: the payload as text, instants as seconds';

create type worker.verdict as (
  id         bigint,
  claim      bigint,
  status     text,
  reason     text,
  delay      double precision,
  until      timestamptz,
  counted    boolean,
  snoozed    boolean,
  keep_steps boolean,
  error      text,
  result     text,
  payload    text,
  follows    text
);
comment on type worker.verdict is 'What became of one attempt; worker.settle writes it';

reset role;
