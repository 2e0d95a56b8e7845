-- For the demo "sync": storing that takes its time, so that there is something to be stopped.
--
-- Needs sql/jobs/sync. Applied once, to a database of the demo's own; drop schema demo cascade takes it away.

create schema if not exists demo;
comment on schema demo is 'What the demos do to the shipped systems and ask of them; nothing that those or the queue need.';

create or replace function demo.doze() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if (select r.user_id from sync.sync_runs as r where r.sync_id = new.sync_id) = tg_argv[0] and new.page = 2 then
        perform pg_sleep(60);
    end if;
    return null;
end
$$;
comment on function demo.doze() is 'Trigger: the second page of one user''s sync takes a minute to store.';

create or replace function demo.begin_dozing() returns void
language sql set search_path = pg_catalog, pg_temp
as $$
drop trigger if exists doze on sync.sync_pages;
create trigger doze after insert on sync.sync_pages for each row execute function demo.doze('dora');
$$;
comment on function demo.begin_dozing() is 'From now on the second page of dora''s sync takes a minute.';

create or replace function demo.dozers() returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'
$$;
comment on function demo.dozers() is 'How many statements are asleep in this database.';

create or replace function demo.pages_of(user_id text) returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
select count(*) from sync.sync_pages as p join sync.sync_runs as r using (sync_id) where r.user_id = pages_of.user_id
$$;
comment on function demo.pages_of(text) is 'How many pages a user''s syncs have stored.';
