-- The tables of the sync manager: which accounts users connected, which syncs they asked for, what those stored and what
-- was detected in it. How a sync is doing stands in its job's row and nowhere else (130_read.sql); here is only what it is.
--
-- Needs schema worker, and a login that may do what its owner may: the one that runs `worker migrate`. The functions that
-- write are SECURITY DEFINER, so nobody is granted a write to a table.
--
-- The files of this folder are applied in the order of their names, each by `psql -1 -f`, as often as one likes.

create schema if not exists sync;
comment on schema sync is 'Syncs of users'' orders from a provider: start, watch, cancel, count.';

create table if not exists sync.provider_accounts (
    tenant_id    text,
    user_id      text not null check (user_id <> ''),
    provider     text not null check (provider ~ '^[a-z][a-z0-9_]{0,62}$'),
    token        text not null check (token <> ''),
    connected_at timestamptz not null,
    expires_at   timestamptz,
    rejected_at  timestamptz,
    unique nulls not distinct (tenant_id, user_id, provider)
);
comment on table  sync.provider_accounts             is 'The token by which a user''s data is read from a provider. Only the worker can read it, through sync.open_run.';
comment on column sync.provider_accounts.rejected_at is 'When the provider said that the token counts no more; until the user connects again.';

create table if not exists sync.sync_runs (
    sync_id         bigint primary key,
    tenant_id       text,
    user_id         text not null,
    provider        text not null,
    requested_at    timestamptz not null,
    detect_job      bigint,
    detect_asked_at timestamptz
);
comment on table  sync.sync_runs            is 'Whose sync which job is. Its status is the job''s: there is no second one that could disagree.';
comment on column sync.sync_runs.sync_id    is 'The id of the job in worker.job_queue.';
comment on column sync.sync_runs.detect_job is 'The job that looks through what this sync stored.';
create index if not exists sync_runs_of_user on sync.sync_runs (user_id, sync_id);
create index if not exists sync_runs_by_time on sync.sync_runs (requested_at);

create table if not exists sync.sync_pages (
    sync_id     bigint not null references sync.sync_runs on delete cascade,
    page        integer not null check (page > 0),
    cursor      text,
    next_cursor text,
    order_ids   text[] not null,
    added       integer not null,
    changed     integer not null,
    stored_at   timestamptz not null,
    primary key (sync_id, page),
    unique nulls not distinct (sync_id, cursor)
);
comment on table  sync.sync_pages             is 'Checkpoints: a row for each page that a sync has stored, written with the page''s orders.';
comment on column sync.sync_pages.cursor      is 'What was asked for; null is the first page.';
comment on column sync.sync_pages.next_cursor is 'What is to be asked for next; null after the last page.';

create table if not exists sync.sync_orders (
    tenant_id  text,
    user_id    text not null,
    provider   text not null,
    order_id   text not null check (order_id <> ''),
    ordered_at timestamptz not null,
    updated_at timestamptz not null,
    quantity   integer not null check (quantity >= 0),
    shipped    integer not null check (shipped >= 0),
    price      numeric(12, 2) not null,
    charged    numeric(12, 2) not null,
    refunded   numeric(12, 2) not null default 0,
    first_sync bigint not null,
    last_sync  bigint not null,
    check ('NaN' not in (price, charged, refunded)),
    unique nulls not distinct (tenant_id, user_id, provider, order_id)
);
comment on table  sync.sync_orders           is 'Orders as the provider last told them.';
comment on column sync.sync_orders.last_sync is 'The last sync that met it, changed or not.';
create index if not exists sync_orders_met on sync.sync_orders (last_sync);

create table if not exists sync.claims (
    tenant_id text,
    user_id   text not null,
    provider  text not null,
    order_id  text not null,
    kind      text not null check (kind in ('short_shipment', 'overcharge')),
    amount    numeric(12, 2) not null check (amount > 0),
    sync_id   bigint not null,
    found_at  timestamptz not null,
    unique nulls not distinct (tenant_id, user_id, provider, order_id, kind)
);
comment on table  sync.claims         is 'What was detected: money that the user is owed.';
comment on column sync.claims.sync_id is 'The sync in whose orders it was found first.';
create index if not exists claims_of_sync on sync.claims (sync_id);

create table if not exists sync.alerts (
    id          bigint generated always as identity primary key,
    sync_id     bigint not null,
    tenant_id   text,
    user_id     text not null,
    code        text not null,
    message     text not null,
    next_action text not null,
    raised_at   timestamptz not null
);
comment on table sync.alerts is 'Syncs that gave up; written by the job sync_alert.';
create index if not exists alerts_by_time on sync.alerts (raised_at);

create table if not exists sync.error_codes (
    place       integer primary key,
    pattern     text not null,
    code        text not null,
    final       text not null check (final in ('reconnect', 'start_again', 'report')),
    retry_after integer
);
comment on table  sync.error_codes             is 'What errors mean for people: the first pattern that an error matches, in the order of place.';
comment on column sync.error_codes.final       is 'What is to be done once the sync has given up: reconnect the account, start another sync, or report it.';
comment on column sync.error_codes.retry_after is 'Seconds that are worth waiting before that.';

insert into sync.error_codes (place, pattern, code, final, retry_after) values
    (10, '^RateLimited',                                         'RATE_LIMITED', 'start_again', 60),
    (20, '^AuthExpired',                                         'AUTH_EXPIRED', 'reconnect',   null),
    (30, '^(AttemptTimeout|StepTimeout|DeadlineExceeded|TooSlow)', 'TIMEOUT',    'start_again', 120),
    (40, '^(ProviderDown|Unreachable|NoConnection|OutboundError|Held)', 'API_DOWN',     'start_again', 120),
    (50, '^(BadPage|TooLarge)|^StepError: step page_[0-9]+: 2[23]', 'DATA_ERROR', 'report',     null),
    (60, '^LeaseExpired',                                        'INTERRUPTED',  'start_again', 0),
    (70, '^InvalidJob',                                          'INVALID',      'report',      null),
    (99, '',                                                     'INTERNAL',     'report',      null)
on conflict (place) do update set pattern = excluded.pattern, code = excluded.code, final = excluded.final,
    retry_after = excluded.retry_after;
