-- The tables of the auto sync: an organizer asks a crew when they have time, those who do not answer are reminded once,
-- and a sync that nobody ends is paused. Needs schema worker. What happens when is in 020, what is sent in 030.
--
-- With `set search_path = auto_sync, public` the tables have the names that applications use.
-- The files of this folder are applied in the order of their names, each by `psql -1 -f`, as often as one likes.

create schema if not exists auto_sync;
comment on schema auto_sync is 'Auto syncs: a crew is asked for its time, reminded after a day, paused after two. The shipped example of reminders.';

create table if not exists auto_sync.profiles (
    id      uuid    primary key default gen_random_uuid(),
    name    text    not null,
    phone   text,
    is_host boolean not null default false
);
comment on table  auto_sync.profiles         is 'People who organize; id is the `sub` of their token.';
comment on column auto_sync.profiles.is_host is 'A registered host: messages go to the thread in the application, and not by SMS.';
create index if not exists profiles_host on auto_sync.profiles (phone) where is_host;

create table if not exists auto_sync.contacts (
    id       uuid primary key default gen_random_uuid(),
    owner_id uuid not null references auto_sync.profiles on delete cascade,
    name     text not null,
    phone    text
);
comment on table  auto_sync.contacts       is 'People whom an organizer can invite.';
comment on column auto_sync.contacts.phone is 'E.164, such as +14155550100; without one nothing can be sent.';

create table if not exists auto_sync.crews (
    id           uuid primary key default gen_random_uuid(),
    organizer_id uuid not null references auto_sync.profiles on delete cascade,
    name         text not null
);
comment on table auto_sync.crews is 'Who is invited together.';

create table if not exists auto_sync.crew_members (
    crew_id    uuid not null references auto_sync.crews on delete cascade,
    contact_id uuid not null references auto_sync.contacts on delete cascade,
    primary key (crew_id, contact_id)
);
comment on table auto_sync.crew_members is 'A contact in a crew.';

create table if not exists auto_sync.auto_syncs (
    id                    uuid        primary key default gen_random_uuid(),
    organizer_id          uuid        not null references auto_sync.profiles on delete cascade,
    crew_id               uuid        not null references auto_sync.crews on delete cascade,
    event_name            text        not null,
    event_location        text,
    status                text        not null default 'running'
                          check (status in ('running', 'paused', 'stopped', 'completed')),
    response_goal         text        not null default 'everyone' check (response_goal in ('everyone', 'critical_mass')),
    timezone              text        not null default 'UTC',
    calendar_connected    boolean     not null default false,
    created_at            timestamptz not null default now(),
    started_at            timestamptz,
    paused_at             timestamptz,
    completed_at          timestamptz,
    stopped_at            timestamptz,
    last_reminder_sent_at timestamptz,
    metadata              jsonb       not null default '{}'
);
comment on table  auto_sync.auto_syncs                       is 'One round of asking a crew for its time.';
comment on column auto_sync.auto_syncs.started_at            is 'What due times count from; filled when it is left empty.';
comment on column auto_sync.auto_syncs.last_reminder_sent_at is 'The last reminder, by the worker or by the organizer, who sets it with the status when a paused sync goes on.';
create index if not exists auto_syncs_organizer on auto_sync.auto_syncs (organizer_id, status);
create index if not exists auto_syncs_crew on auto_sync.auto_syncs (crew_id);

create table if not exists auto_sync.auto_sync_options (
    id           uuid        primary key default gen_random_uuid(),
    auto_sync_id uuid        not null references auto_sync.auto_syncs on delete cascade,
    idx          integer     not null check (idx between 1 and 3),
    start_time   timestamptz not null,
    end_time     timestamptz,
    timezone     text        not null default 'UTC',
    unique (auto_sync_id, idx)
);
comment on table  auto_sync.auto_sync_options          is 'A time that is asked for.';
comment on column auto_sync.auto_sync_options.end_time is 'Where it is null the option is over when it starts.';

create table if not exists auto_sync.auto_sync_responses (
    auto_sync_id  uuid        not null references auto_sync.auto_syncs on delete cascade,
    contact_id    uuid        not null references auto_sync.contacts on delete cascade,
    response_type text        not null check (response_type in ('available', 'not_available')),
    option_ids    uuid[]      not null default '{}',
    responded_at  timestamptz not null default now(),
    primary key (auto_sync_id, contact_id)
);
comment on table auto_sync.auto_sync_responses is 'The last word of each who answered.';

create table if not exists auto_sync.auto_sync_messages (
    id           bigint      generated always as identity primary key,
    auto_sync_id uuid        not null references auto_sync.auto_syncs on delete cascade,
    contact_id   uuid        not null references auto_sync.contacts on delete cascade,
    message_type text        not null check (message_type in ('initial', 'reminder')),
    sent_at      timestamptz not null default now(),
    is_resolved  boolean     not null default false
);
comment on table auto_sync.auto_sync_messages is 'What was sent to invitees: `initial` by the application, `reminder` by the worker.';
create index if not exists auto_sync_messages_sync on auto_sync.auto_sync_messages (auto_sync_id, contact_id);

create table if not exists auto_sync.message_thread (
    id           bigint      generated always as identity primary key,
    profile_id   uuid        not null references auto_sync.profiles on delete cascade,
    auto_sync_id uuid        references auto_sync.auto_syncs on delete cascade,
    body         text        not null,
    created_at   timestamptz not null default now()
);
comment on table auto_sync.message_thread is 'What hosts read in the application in place of an SMS.';

create table if not exists auto_sync.conversation_state (
    profile_id   uuid        primary key references auto_sync.profiles on delete cascade,
    state        text        not null,
    auto_sync_id uuid        references auto_sync.auto_syncs on delete cascade,
    updated_at   timestamptz not null default now()
);
comment on table auto_sync.conversation_state is 'Which menu an organizer''s next text message is an answer to.';
