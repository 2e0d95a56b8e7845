-- What limits, takes turns and fires by the clock: running limits, rates, fair share, schedules.

set local role worker_owner;

alter table worker.job_type add column fair boolean not null default false;

alter table worker.job_queue add column fair boolean not null default false;
comment on column worker.job_queue.fair is 'Of a type whose tenants take turns: only such rows stand in the index that hops over tenants';

-- Only fair rows pay for it; null is no key to hop over.
create index job_queue_turn on worker.job_queue (job_type, priority, coalesce(tenant_id::text, ''), scheduled_at, id)
  where queued and fair;

-- What a backlog counts besides the due index. Not for others: parked rows are found by their key.
create index job_queue_parked_of on worker.job_queue (job_type, priority) where parked and job_type is not null;

create unlogged table worker.turn (
  job_type text primary key,
  tenant   text not null default ''
) with (fillfactor = 10);
comment on table worker.turn is 'The tenant of each fair type that was served last; lost with a crash, and then begun again';

create table worker.type_slot (
  job_type text not null references worker.job_type on delete cascade,
  slot     integer not null check (slot <> 0),
  job_id   bigint,
  primary key (job_type, slot),
  constraint surplus_is_taken check (slot > 0 or job_id is not null)
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
create index type_slot_free on worker.type_slot (job_type, slot) where job_id is null;
create index type_slot_taken on worker.type_slot (job_id) where job_id is not null;
create index type_slot_surplus on worker.type_slot (job_type, slot) where slot < 0;
comment on table worker.type_slot is 'Running limits: one row for each job of a type that may run at once, with the job that runs in it; below zero: beyond a limit that was lowered, gone with its job';

create table worker.rate (
  key     text primary key check (octet_length(key) <= 700),
  tokens  double precision not null,
  at      timestamptz not null,
  tail    timestamptz not null,
  full_at timestamptz not null
)
with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
comment on table worker.rate is 'Token buckets, of types that start at a rate and of permits: tokens left at an instant, the instant up to which later starts are booked, and the one from which the bucket is full, as one that is not there';

create table worker.schedule (
  name          text primary key check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  cron          text not null,
  zone          text not null,
  job_type      text not null,
  payload       worker.document,
  for_each      text,
  priority      smallint check (priority between 0 and 1000),
  source        text not null check (octet_length(source) <= 200),
  missed        text not null check (missed in ('skip', 'last', 'all')),
  max_catch_up  integer not null check (max_catch_up between 1 and 1000),
  enabled       boolean not null default true,
  paused        boolean not null default false,
  next_at       timestamptz,
  asked_at      timestamptz,
  retry_at      timestamptz,
  failures      integer not null default 0,
  last_at       timestamptz,
  fired_at      timestamptz,
  last_jobs     integer,
  lateness      double precision,
  error         text,
  digest        text not null,
  declared_at   timestamptz not null default clock_timestamp()
);
comment on table worker.schedule is 'Jobs by the clock as declared in worker.toml, but for paused, which is the operators''; the next run of each, fired by compare-and-set on next_at';
comment on column worker.schedule.enabled is 'False: declared so, or no longer in the file; what it did stays to be read';
comment on column worker.schedule.last_at is 'The instant that its last run was for; fired_at is when that happened, lateness how many seconds after';
comment on column worker.schedule.next_at is 'The next run; null: a daemon is to work it out from now on';
comment on column worker.schedule.asked_at is 'An operator wants a run now, and a daemon is to read the rows of for_each for it';
comment on column worker.schedule.error is 'Why its last run came to nothing; failures is how often in a row, retry_at when it is tried again';

reset role;
