-- The words of a sync: its status, whose it is and who may see it, and what its errors mean.

create or replace function sync.status_word(status text) returns text
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
select case
    when status is null or status = 'idle' then 'idle'
    when status in ('running', 'in_progress', 'pending', 'queued', 'processing', 'detecting') then 'running'
    when status in ('completed', 'complete') then 'completed'
    when status in ('failed', 'error') then 'failed'
    when status in ('cancelled', 'canceled', 'skipped') then 'cancelled' end
$$;
comment on function sync.status_word(text) is
    'The status of a sync in one of five words (idle, running, completed, failed, cancelled), from the queue''s or any older spelling; null for what is no status.';

create or replace function sync.current_user_id() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $$;
comment on function sync.current_user_id() is 'The user that the caller is, by the claim sub of the JWT, or null.';

create or replace function sync.tenant(wanted text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    acting text := worker.current_tenant();
begin
    if wanted <> acting then
        raise exception 'the caller acts for tenant "%", not for "%"', acting, wanted using errcode = 'SY002';
    end if;
    return coalesce(wanted, acting);
end
$$;
comment on function sync.tenant(text) is 'The tenant that is meant: the one the caller acts for, else the one that was named, else none; SY002 when they differ.';

create or replace function sync.sees(tenant_id text, user_id text) returns boolean
language sql stable
-- Bound here, so that it is inlined and still no operator of the caller's search_path stands in for `=`.
return case
    when pg_has_role(current_user, 'worker_read', 'member') then true
    when pg_has_role(current_user, 'worker_enqueue', 'member')
        then worker.current_tenant() is null or sees.tenant_id = worker.current_tenant()
    else sees.user_id = sync.current_user_id() and sees.tenant_id is not distinct from worker.current_tenant() end;
comment on function sync.sees(text, text) is
    'Whether the caller may see what belongs to this user: readers of the queue all, applications those of the tenant they act for, anybody else only what is their own.';

create or replace function sync.error_of(status text, message text, next_run timestamptz) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
as $$
select case when message is not null then (
    select jsonb_build_object(
               'code', e.code,
               'message', regexp_replace(message, '^\w+: ', ''),
               'next_action', case when status = 'running' then 'wait' else e.final end,
               'retry_after', case when status = 'running'
                    then greatest(ceil(extract(epoch from next_run - worker.now())), 0) else e.retry_after end)
      from sync.error_codes as e
     where message ~ e.pattern
     order by e.place
     limit 1) end
$$;
comment on function sync.error_of(text, text, timestamptz) is
    'An error as people need it: its code, a message, what to do next (wait, reconnect, start_again, report) and after how many seconds. A sync that still runs is tried again by itself.';
