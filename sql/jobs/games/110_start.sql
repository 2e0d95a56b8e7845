-- Starting a sync. Refusals have SQLSTATEs of their own, which end in what HTTP would say:
--   GS400 platform unknown, no name set on it, span or filters wrong    GS403 another user's
--   GS404 no such user, no such sync                                    GS409 one is active for this user and platform
--
-- At most one is active for a user and platform because the job's unique key says so, by an index: two starts at the
-- same instant make one sync and one refusal.

create or replace function games.may(user_id uuid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
-- Of SECURITY DEFINER functions too: who called is the role that was set, else the login.
select case when acting is not null then acting = user_id::text
            else pg_has_role(who, 'worker_enqueue', 'member') or pg_has_role(who, 'worker_operate', 'member')
                 or pg_has_role(who, 'worker_read', 'member') end
  from (select who, worker.tenant_of(who) as acting
          from (select coalesce(nullif(current_setting('role', true), 'none'), session_user)::name as who) as caller) as c
$$;
comment on function games.may(uuid) is
  'Whether the caller may see this user''s syncs: the user (the JWT claim tenant_id), or a program that acts for nobody in particular.';

create or replace function games.check_user(user_id uuid) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if not games.may(check_user.user_id) then
        raise exception 'syncs of user % are not yours', check_user.user_id using errcode = 'GS403';
    end if;
    if not exists (select from games.player p where p.user_id = check_user.user_id) then
        raise exception 'there is no user %', check_user.user_id using errcode = 'GS404';
    end if;
end
$$;
comment on function games.check_user(uuid) is 'Raises GS403 for another user, GS404 for none.';

create or replace function games.checked_filters(filters jsonb) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
    known constant jsonb := '{"kind": ["bullet", "blitz", "rapid", "classical", "daily", "other"],
                              "result": ["win", "loss", "draw"], "colour": ["white", "black"]}';
    name text;
    asked jsonb;
    checked jsonb := '{}';
begin
    if jsonb_typeof(filters) <> 'object' then
        raise exception 'filters must be an object' using errcode = 'GS400';
    end if;
    for name, asked in select key, value from jsonb_each(filters) where value <> 'null' loop
        asked := case when jsonb_typeof(asked) = 'array' then asked else jsonb_build_array(asked) end;
        if not known ? name then
            raise exception 'there is no filter "%"', name using errcode = 'GS400', hint = 'Filters are kind, result, colour.';
        elsif asked = '[]' or not known -> name @> asked then
            raise exception 'filter % cannot be %', name, asked
                using errcode = 'GS400', hint = format('It is one of %s, or several of them.', known ->> name);
        end if;
        checked := checked || jsonb_build_object(name, asked);
    end loop;
    return checked;
end
$$;
comment on function games.checked_filters(jsonb) is
  'Filters with every value as an array; raises GS400 for names and values that are unknown.';

create or replace function games.start(user_id uuid, platform text, months integer default 1, from_at timestamptz default null,
    to_at timestamptz default null, filters jsonb default '{}', out sync_id uuid, out job_id bigint, out status text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    name text;
    first timestamptz := coalesce(from_at, worker.now() - make_interval(days => 30 * coalesce(months, 1)));
    last  timestamptz := coalesce(to_at, worker.now());
    wanted jsonb := games.checked_filters(coalesce(filters, '{}'));
    holder bigint;
begin
    perform games.check_user(start.user_id);
    if platform is null or platform not in ('lichess', 'chess.com') then
        raise exception 'there is no platform "%"', platform using errcode = 'GS400', hint = 'Platforms are lichess and chess.com.';
    end if;
    if coalesce(months, 1) not between 1 and 120 or last <= first
       or first < '2000-01-01 00:00+00' or last > '9000-01-01 00:00+00' then
        raise exception 'nothing lies between % and %', first, last
            using errcode = 'GS400', hint = 'months is 1 to 120; to is later than from.';
    end if;
    select case start.platform when 'lichess' then p.lichess else p.chess_com end into name
      from games.player p where p.user_id = start.user_id;
    if name is null then
        raise exception 'user % has no name on %', start.user_id, platform
            using errcode = 'GS400', hint = 'Set it in the profile: games.player.';
    end if;
    sync_id := gen_random_uuid();
    status := 'pending';
    begin
        job_id := worker.enqueue('sync_games', jsonb_build_object('tenant_id', start.user_id, 'sync_id', sync_id,
                                 'platform', platform), on_conflict => 'refuse', source => 'user');
    exception when sqlstate 'WK003' then
        get stacked diagnostics name = pg_exception_detail;
        holder := name;
        raise exception 'a sync of % is active for user %', platform, start.user_id using errcode = 'GS409',
            detail = (select s.id::text from games.sync s where s.job_id = holder), hint = 'Wait for it, or cancel it.';
    end;
    insert into games.sync (id, user_id, platform, username, months, from_at, to_at, filters, job_id, moved_at, created_at)
    values (sync_id, start.user_id, start.platform, name, coalesce(months, 1), first, last, wanted, job_id,
            worker.now(), worker.now());
end
$$;
comment on function games.start(uuid, text, integer, timestamptz, timestamptz, jsonb) is
  'Starts a sync of a user''s games of the last so many months of 30 days, or of a span; answers with its id, its job''s id and pending. Raises GS400, GS403, GS404, and GS409 with the active sync''s id in DETAIL.';
