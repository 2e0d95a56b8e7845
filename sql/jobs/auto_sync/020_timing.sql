-- When things are due: one place for the timings, and what a sync has gone through since it started or went on.

create table if not exists auto_sync.timing (
    profile              text     primary key,
    reminder_after       interval not null check (reminder_after > interval '0'),
    pause_after          interval not null,
    pause_after_reminder interval not null check (pause_after_reminder > interval '0'),
    in_force             boolean  not null default false,
    check (pause_after > reminder_after)
);
comment on table  auto_sync.timing                      is 'The timings, by profile; one is in force. Nothing else says how long anything takes.';
comment on column auto_sync.timing.reminder_after       is 'From the start to the reminder.';
comment on column auto_sync.timing.pause_after          is 'From the start to the pause.';
comment on column auto_sync.timing.pause_after_reminder is 'From a reminder that the organizer sent, or that came later than the pause was due, to the pause.';
create unique index if not exists timing_in_force on auto_sync.timing (in_force) where in_force;

insert into auto_sync.timing (profile, reminder_after, pause_after, pause_after_reminder, in_force)
values ('production', '24 hours', '48 hours', '24 hours', true),
       ('demo', '5 minutes', '10 minutes', '5 minutes', false)
    on conflict (profile) do nothing;

create or replace function auto_sync.timings() returns auto_sync.timing
language sql stable set search_path = pg_catalog, pg_temp
as $$ select t from auto_sync.timing t where t.in_force $$;
comment on function auto_sync.timings() is 'The timings in force.';

create or replace function auto_sync.use_profile(profile text) returns auto_sync.timing
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    chosen auto_sync.timing;
begin
    update auto_sync.timing t set in_force = false where t.in_force and t.profile <> use_profile.profile;
    update auto_sync.timing t set in_force = true where t.profile = use_profile.profile returning t.* into chosen;
    if chosen is null then
        raise exception 'there are no timings named %', use_profile.profile
              using errcode = 'no_data_found', hint = 'select profile from auto_sync.timing';
    end if;
    return chosen;
end
$$;
comment on function auto_sync.use_profile(text) is
    'Puts the timings of a profile in force: production (24 and 48 hours), demo (5 and 10 minutes), or one of your own. What is due already stays due when it was.';

create table if not exists auto_sync.cycles (
    auto_sync_id uuid        not null references auto_sync.auto_syncs on delete cascade,
    cycle        integer     not null check (cycle > 0),
    anchored_at  timestamptz not null,
    reminder_due timestamptz,
    prepared_at  timestamptz,
    reminder_job bigint,
    reminded_at  timestamptz,
    pause_due    timestamptz,
    paused_at    timestamptz,
    tenant_id    text,
    created_at   timestamptz not null default worker.now(),
    primary key (auto_sync_id, cycle)
);
comment on table  auto_sync.cycles              is 'What a sync goes through each time it starts or goes on: one reminder at most, and one pause.';
comment on column auto_sync.cycles.anchored_at  is 'What due times count from: started_at, or when it went on, or the organizer''s own reminder.';
comment on column auto_sync.cycles.reminder_due is 'Null when the organizer has reminded.';
comment on column auto_sync.cycles.prepared_at  is 'When the worker wrote down whom to remind.';
comment on column auto_sync.cycles.reminder_job is 'Which job did.';
comment on column auto_sync.cycles.reminded_at  is 'When it was through with them.';
comment on column auto_sync.cycles.paused_at    is 'When the worker paused the sync.';
comment on column auto_sync.cycles.tenant_id    is 'The tenant whom the jobs belong to, as whoever started the sync acted for it.';

create or replace function auto_sync.current_cycle(sync uuid) returns auto_sync.cycles
language sql stable set search_path = pg_catalog, pg_temp
as $$ select c from auto_sync.cycles c where c.auto_sync_id = sync order by c.cycle desc limit 1 $$;
comment on function auto_sync.current_cycle(uuid) is 'The latest cycle of a sync, or null when the worker has nothing to do with it.';
