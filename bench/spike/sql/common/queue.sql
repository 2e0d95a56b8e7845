-- The queue table with every column of the contract, and the three indexes all variants share.
create table worker.job_queue (
    id                  bigint generated always as identity primary key,
    parent_id           bigint,
    claimed_by          bigint,
    batch               bigint,
    claim               bigint,
    scheduled_at        timestamptz not null default now(),
    created_at          timestamptz not null default now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    expires_at          timestamptz,
    deadline_at         timestamptz,
    cancel_requested_at timestamptz,
    attempt             integer  not null default 0,
    max_attempts        integer  not null default 5,
    rescues             integer  not null default 0,
    snoozes             integer  not null default 0,
    priority            smallint not null default 100,
    queued              boolean  not null default true,
    parked              boolean  not null default false,
    trouble             boolean  not null default false,  -- failed or cancelled
    job_type            text     not null,
    status              text     not null default 'pending',
    payload             jsonb    not null default '{}',
    unique_key          text,
    unique_while        text,
    held_key            text,                             -- the unique key, as long as it is held
    concurrency_key     text,
    tenant_id           text,
    enqueued_by         name     not null default current_user,
    correlation_id      text,
    traceparent         text,
    source              text,
    phase               text,
    progress            jsonb,
    result              jsonb,
    errors              jsonb,
    finish_reason       text
) with (fillfactor = 70, autovacuum_enabled = false);

create index job_queue_due on worker.job_queue (job_type, priority, scheduled_at, id) where queued;
create index job_queue_parked on worker.job_queue (concurrency_key, priority, scheduled_at, id) where parked;
create unique index job_queue_held on worker.job_queue (job_type, tenant_id, held_key) nulls not distinct where held_key is not null;
