-- The one clock and the one tenant.

create or replace function worker.now() returns timestamptz
language sql stable parallel safe
return coalesce((select coalesce(c.at, statement_timestamp() + c.shift) from worker.clock c), statement_timestamp());
comment on function worker.now() is
  'The queue''s clock: the statement''s timestamp, or in a database marked for tests what worker.clock says. Every due time, lease and retry time comes from here';

create or replace function worker.set_clock(at timestamptz default null, shift interval default null) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
  delete from worker.clock;
  if at is not null or shift is not null then
    insert into worker.clock (at, shift) values (set_clock.at, coalesce(set_clock.shift, interval '0'));
  end if;
  return worker.now();
end
$$;
comment on function worker.set_clock(timestamptz, interval) is
  'Tests only, owner only: stops the clock at an instant, moves it by a shift, or, called without arguments, sets it going again';

create or replace function worker.tenant_of(role name) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  claims text := nullif(pg_catalog.current_setting('request.jwt.claims', true), '');
  tenant text;
begin
  if claims is not null then
    tenant := coalesce(claims::pg_catalog.jsonb ->> 'tenant_id', claims::pg_catalog.jsonb -> 'app_metadata' ->> 'tenant_id');
  end if;
  if tenant is null and pg_catalog.pg_has_role(role, 'worker_enqueue', 'member') then
    tenant := nullif(pg_catalog.current_setting('worker.tenant', true), '');
  end if;
  return tenant;
end
$$;
comment on function worker.tenant_of(name) is
  'The tenant a role acts for: the JWT claim tenant_id where there is one; the setting worker.tenant counts for members of worker_enqueue only';

create or replace function worker.current_tenant() returns text
language sql stable
return worker.tenant_of(current_user);
comment on function worker.current_tenant() is 'The tenant the caller acts for, or null; row-level security compares it with tenant_id';
