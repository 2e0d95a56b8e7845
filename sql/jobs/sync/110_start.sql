-- How a sync comes about. Who starts one is an application: a user's wish comes by way of it.

create or replace function sync.connect(
    user_id text, provider text, token text, expires_at timestamptz default null, tenant_id text default null)
returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$
insert into sync.provider_accounts as a (tenant_id, user_id, provider, token, connected_at, expires_at)
values (sync.tenant(connect.tenant_id), connect.user_id, connect.provider, connect.token, worker.now(),
        connect.expires_at)
    on conflict on constraint provider_accounts_tenant_id_user_id_provider_key do update
   set token = excluded.token, connected_at = excluded.connected_at, expires_at = excluded.expires_at,
       rejected_at = null
$$;
comment on function sync.connect(text, text, text, timestamptz, text) is
    'Keeps the token by which a user''s data is read from a provider, in place of an older one.';

create or replace function sync.disconnect(user_id text, provider text, tenant_id text default null) returns boolean
language sql security definer set search_path = pg_catalog, pg_temp
as $$
with gone as (
    delete from sync.provider_accounts as a
     where a.user_id = disconnect.user_id and a.provider = disconnect.provider
       and a.tenant_id is not distinct from sync.tenant(disconnect.tenant_id)
    returning true)
select exists (select from gone)
$$;
comment on function sync.disconnect(text, text, text) is 'Forgets a token; false when there was none. A sync that runs goes on to the end of its attempt.';

create or replace function sync.check_start(user_id text, provider text, tenant_id text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    account sync.provider_accounts;
begin
    if coalesce(user_id, '') = '' then
        raise exception 'a sync needs a user' using errcode = 'SY002';
    end if;
    if not exists (select from worker.job_type as t
                    where t.name = 'sync' and t.unique_key is not null and t.unique_while = 'active') then
        raise exception 'the job type sync is not declared as it must be'
            using errcode = 'SY006', hint = 'docs/systems/sync.md has the part of worker.toml; then run `worker migrate`.';
    end if;
    select a.* into account from sync.provider_accounts as a
     where a.user_id = check_start.user_id and a.provider = check_start.provider
       and a.tenant_id is not distinct from check_start.tenant_id;
    if account.user_id is null or account.expires_at <= worker.now() or account.rejected_at is not null then
        raise exception 'no token of user "%" for %: %', user_id, coalesce(provider, 'no provider'), case
                when account.user_id is null then 'not found'
                when account.rejected_at is not null then 'the provider has rejected it' else 'it has expired' end
            using errcode = 'SY001', hint = 'Connect the account again: sync.connect.';
    end if;
end
$$;
comment on function sync.check_start(text, text, text) is
    'Refuses a sync that could not even begin: no user (SY002), no token that counts (SY001), no job type (SY006).';

create or replace function sync.start(
    user_id text, provider text default 'seller', source text default 'user', priority integer default null,
    tenant_id text default null, delay interval default null, correlation_id text default null)
returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    tenant     text := sync.tenant(tenant_id);
    running_id text;
    new_id     bigint;
begin
    perform sync.check_start(user_id, provider, tenant);
    begin
        new_id := worker.enqueue('sync', jsonb_build_object('user_id', user_id, 'provider', provider),
            priority => coalesce(priority, case source when 'user' then 50 when 'schedule' then 200 else 100 end),
            on_conflict => 'refuse', tenant_id => tenant, delay => start.delay,
            correlation_id => start.correlation_id, source => start.source);
    -- Not looked for: the queue's unique index knows, also of a start that commits at this moment.
    exception when sqlstate 'WK003' then
        get stacked diagnostics running_id = pg_exception_detail;
        raise exception 'a sync of user "%" is in progress already (%)', user_id, running_id
            using errcode = 'SY003', detail = running_id, hint = 'Wait for it, or cancel it: sync.cancel.';
    when sqlstate 'WK011' then
        raise exception 'too many syncs wait already' using errcode = 'SY005', hint = 'Try again in a minute.';
    end;
    insert into sync.sync_runs (sync_id, tenant_id, user_id, provider, requested_at)
    values (new_id, tenant, start.user_id, start.provider, worker.now());
    return new_id;
end
$$;
comment on function sync.start(text, text, text, integer, text, interval, text) is
    'Starts a sync and answers with its id. Refused without a token (SY001), and while a sync of this user is at work (SY003, DETAIL is its id), or when the backlog is full and the declaration says refuse (SY005). Priority: 50 for source user, 200 for schedule, else 100; smaller first.';

create or replace function sync.bulk_start(requests jsonb, source text default 'bulk')
returns table (place integer, user_id text, sync_id bigint, code text, message text, running_id bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    asked  record;
    detail text;
begin
    if jsonb_typeof(requests) is distinct from 'array' or jsonb_array_length(requests) not between 1 and 5 then
        raise exception 'a bulk is an array of one to five syncs' using errcode = 'SY002';
    end if;
    -- In the order of their keys, or two bulks could wait for each other.
    for asked in
        select r.place::integer as place, d.*
          from jsonb_array_elements(requests) with ordinality as r (request, place)
         cross join jsonb_to_record(r.request) as d (user_id text, provider text, priority integer, tenant_id text)
         order by d.tenant_id, d.user_id, r.place
    loop
        place := asked.place;
        user_id := asked.user_id;
        sync_id := null; code := null; message := null; running_id := null;
        begin
            sync_id := sync.start(asked.user_id, coalesce(asked.provider, 'seller'), bulk_start.source, asked.priority,
                                  asked.tenant_id);
        exception when sqlstate 'SY001' or sqlstate 'SY002' or sqlstate 'SY003' or sqlstate 'SY005' then
            get stacked diagnostics code = returned_sqlstate, message = message_text, detail = pg_exception_detail;
            running_id := case when code = 'SY003' then nullif(detail, '')::bigint end;
        end;
        return next;
    end loop;
end
$$;
comment on function sync.bulk_start(jsonb, text) is
    'Starts up to five syncs, [{"user_id": …, "provider": …, "priority": …, "tenant_id": …}, …]; a row for each with its id, or why it was refused. One that is refused does not keep the others from starting.';

create or replace function sync.start_due(
    every interval default '1 hour', apart interval default '2 seconds', most integer default 500)
returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    account sync.provider_accounts;
    started integer := 0;
begin
    for account in
        select distinct on (a.tenant_id, a.user_id) a.*
          from sync.provider_accounts as a
         where a.rejected_at is null and (a.expires_at is null or a.expires_at > worker.now())
           and not exists (select from sync.sync_runs as r join worker.job_queue as j on j.id = r.sync_id
                            where r.user_id = a.user_id and r.tenant_id is not distinct from a.tenant_id
                              and (j.finished_at is null or j.finished_at > worker.now() - every))
         order by a.tenant_id, a.user_id, a.provider
         limit most
    loop
        begin
            perform sync.start(account.user_id, account.provider, 'schedule', tenant_id => account.tenant_id,
                               delay => started * apart);
            started := started + 1;
        exception
            when sqlstate 'SY001' or sqlstate 'SY003' then null;  -- since the look
            when sqlstate 'SY005' then exit;
        end;
    end loop;
    return started;
end
$$;
comment on function sync.start_due(interval, interval, integer) is
    'Starts a sync for each connected user who has none at work and none that ended within `every`, one after the other with `apart` between them; answers with how many.';
