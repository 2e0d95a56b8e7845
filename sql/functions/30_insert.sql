-- A plain insert is as good as worker.enqueue: these triggers fill, check and hold.

create or replace function worker.fill(template text, job worker.job_queue) returns text
language plpgsql stable
as $$
declare
  part text[];
  filled text := '';
  value text;
begin
  if template is null or (strpos(template, '{') = 0 and strpos(template, '}') = 0) then
    return template;
  end if;
  for part in select regexp_matches(template, '(\{\{|\}\}|[^{}]+)|\{([A-Za-z_][A-Za-z0-9_]*)\}', 'g') loop
    if part[1] is not null then
      value := case part[1] when '{{' then '{' when '}}' then '}' else part[1] end;
    else
      value := case part[2]
        when 'tenant_id' then job.tenant_id when 'correlation_id' then job.correlation_id
        when 'id' then job.id::text when 'job_type' then job.job_type
        else job.payload ->> part[2] end;
    end if;
    if value is null then
      return null;
    end if;
    filled := filled || value;
  end loop;
  return filled;
end
$$;
comment on function worker.fill(text, worker.job_queue) is
  'Fills a template such as stats:{tenant_id}; tenant_id, correlation_id, id and job_type mean columns, other names payload keys. Null when a name is unknown';

create or replace function worker.holder(job_type text, held_key text, tenant_id text) returns worker.job_queue
-- Generic, for a plan made for one key may read all of its type where statistics say that the table is nearly empty. So may
-- the one that a session made while it was: to it each index costs the same. Only that of held keys has them in order.
language plpgsql stable set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan set enable_sort = off
as $$
declare
  found_row worker.job_queue;
begin
  -- Two statements, because "is not distinct from" cannot use the index; and not "=", which leaves nothing to order by.
  if tenant_id is null then
    select * into found_row from worker.job_queue j
    where j.job_type = holder.job_type and j.held_key between holder.held_key and holder.held_key and j.tenant_id is null
    order by j.held_key limit 1;
  else
    select * into found_row from worker.job_queue j
    where j.job_type = holder.job_type and j.held_key between holder.held_key and holder.held_key
      and j.tenant_id = holder.tenant_id
    order by j.held_key limit 1;
  end if;
  return found_row;
end
$$;
comment on function worker.holder(text, text, text) is 'The job that holds a unique key of a type and tenant now, or a row of nulls';

create or replace function worker.meet(job worker.job_queue, mode text, instant timestamptz) returns bigint
language plpgsql
as $$
declare
  held worker.job_queue;
  waiting boolean;
begin
  for round in 1..3 loop
    held := worker.holder(job.job_type, job.held_key, job.tenant_id);
    if held.id is null then
      return null;
    end if;
    waiting := held.status = 'pending' and held.started_at is null;
    if waiting and held.expires_at <= instant then
      update worker.job_queue j set status = 'skipped', finish_reason = 'expired', queued = false, parked = false,
        held_key = null, finished_at = instant
      where j.id = held.id and j.status = 'pending' and j.started_at is null;
      if found then perform worker.note_waiting('expired', array[held.id]); end if;
      delete from worker.kept k where k.job_id = held.id;
    elsif mode = 'refuse' or (mode = 'replace' and not waiting) then
      raise exception 'job % already holds the unique key "%" of %', held.id, job.unique_key, job.job_type
        using errcode = 'WK003', detail = held.id::text, hint = 'Wait for that job, or enqueue with on_conflict => ''keep''.';
    elsif mode = 'replace' then
      update worker.job_queue j set payload = job.payload, priority = job.priority, scheduled_at = job.scheduled_at,
        queued = true, parked = false
      where j.id = held.id and j.status = 'pending' and j.started_at is null;
      if found then
        perform worker.note_waiting('replaced', array[held.id], job.enqueued_by);
        return held.id;
      end if;
    elsif not waiting or (job.priority >= held.priority and job.scheduled_at >= held.scheduled_at) then
      return held.id;
    else
      update worker.job_queue j set priority = least(j.priority, job.priority),
        scheduled_at = least(j.scheduled_at, job.scheduled_at)
      where j.id = held.id and j.status = 'pending' and j.started_at is null;
      if found then return held.id; end if;
    end if;
  end loop;
  return null;  -- the holder changed under our eyes three times: let the unique index decide
end
$$;
comment on function worker.meet(worker.job_queue, text, timestamptz) is
  'Applies on_conflict to the visible holder of the job''s unique key; answers with its id when the new row is not to be inserted. An expired holder is ended first';

create or replace function worker.check_tenant(job worker.job_queue, producers text[]) returns void
language plpgsql
as $$
declare
  refused text;
begin
  if not 'tenant' = any (coalesce(producers, '{}')) then
    raise exception 'tenants may not enqueue %', job.job_type
      using errcode = 'WK002', hint = 'Declare the type with producers = ["app", "tenant"] in worker.toml.';
  end if;
  refused := case
    when job.unique_key is not null then 'unique_key'
    when job.concurrency_key is not null then 'concurrency_key'
    when job.max_attempts is not null then 'max_attempts'
    when job.source is not null then 'source'
    when job.on_conflict is not null then 'on_conflict'
    when job.tenant_id is not null then 'tenant_id'
    when job.priority < 100 then 'a priority below 100' end;
  if refused is not null then
    raise exception '% is not for tenants to set', refused
      using errcode = 'WK005', hint = 'Leave it out: what worker.toml declares rules.';
  end if;
end
$$;
comment on function worker.check_tenant(worker.job_queue, text[]) is
  'Refuses what a tenant may not produce (WK002) and the columns a tenant may not set (WK005)';

create or replace function worker.check_whose(tenant_id text, payload_tenant text, acting text, is_app boolean) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
  if payload_tenant <> tenant_id then
    raise exception 'the payload''s tenant_id "%" is not the row''s tenant_id "%"', payload_tenant, tenant_id
      using errcode = 'WK004', hint = 'Give one of the two.';
  end if;
  -- The policies say it too, but only of rows that are inserted: not when another tenant's holder is met, nor of many rows.
  if (acting is null and not is_app) or tenant_id <> acting then
    raise exception '% may not enqueue for tenant "%"', coalesce('tenant "' || acting || '"', 'a role without a tenant'), tenant_id
      using errcode = 'WK004', hint = 'The tenant is the claim tenant_id of the JWT, or for applications the setting worker.tenant.';
  end if;
end
$$;
comment on function worker.check_whose(text, text, text, boolean) is
  'Refuses a row whose payload names another tenant than the row, or whose tenant is not the one its producer acts for (WK004)';

create or replace function worker.keyed(job worker.job_queue, unique_template text, concurrency_template text, coalesce_template text,
  instant timestamptz) returns worker.job_queue
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
  job.unique_key := coalesce(job.unique_key, worker.fill(unique_template, job));
  job.concurrency_key := coalesce(job.concurrency_key, worker.fill(concurrency_template, job));
  if coalesce_template is not null and job.concurrency_key is null then
    -- One slot for the rows of (type, tenant, key); a key that cannot be filled makes a call of its own.
    job.coalesced := true;
    job.concurrency_key := left(concat_ws(' ', 'coalesce', job.job_type, coalesce(job.tenant_id, '-'),
      coalesce(worker.fill(coalesce_template, job), job.correlation_id)), 500);
  end if;
  if (job.unique_key is null and unique_template is not null)
     or (job.concurrency_key is null and concurrency_template is not null) then
    return worker.invalid(job, instant, format('the payload lacks a name that %s needs',
      case when job.unique_key is null and unique_template is not null then 'unique_key "' || unique_template || '"'
           else 'concurrency_key "' || concurrency_template || '"' end));
  end if;
  return job;
end
$$;
comment on function worker.keyed(worker.job_queue, text, text, text, timestamptz) is
  'The row with the keys that its type''s templates give it, or as failed / invalid when its payload lacks a name';

create or replace function worker.before_insert() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
  instant timestamptz;
  lifetime interval;
  declared_priority smallint;
  declared_attempts smallint;
  held_while text;
  mode text;
  unique_template text;
  concurrency_template text;
  coalesce_template text;
  producers text[];
  audited boolean;
  gated boolean;
  follows boolean := new.enqueued_by = 'worker_owner';
  payload_tenant text := new.payload ->> 'tenant_id';
  is_app boolean := pg_has_role(new.enqueued_by, 'worker_enqueue', 'member');
  acting text;
  holder_id bigint;
begin
  -- One query and, for a plain row, no call of ours: each is up to a tenth of its processor time (decision 0014). So the
  -- clock is worker.now() written out, and the tenant, where there is no JWT, is worker.tenant_of() written out.
  select (select coalesce(c.at, statement_timestamp() + c.shift) from worker.clock c), t.priority, t.max_attempts, t.expires,
    t.unique_while, t.on_conflict, t.unique_key, t.concurrency_key, t.coalesce_key, t.producers, t.audit,
    t.fair or t.limits <> '{}' or t.backlog is not null
  into instant, declared_priority, declared_attempts, lifetime,
    held_while, mode, unique_template, concurrency_template, coalesce_template, producers, audited, gated
  from worker.job_type t where t.name = new.job_type;
  instant := case when found then coalesce(instant, statement_timestamp()) else worker.now() end;
  if is_app and coalesce(current_setting('request.jwt.claims', true), '') = '' then
    acting := nullif(current_setting('worker.tenant', true), '');
  else
    acting := worker.tenant_of(new.enqueued_by);
  end if;

  if not is_app then
    perform worker.check_tenant(new, producers);
  end if;
  if payload_tenant is not null or acting is not null or not is_app then
    new.tenant_id := coalesce(new.tenant_id, payload_tenant, acting);
    perform worker.check_whose(new.tenant_id, payload_tenant, acting, is_app);
  end if;

  new.created_at := coalesce(new.created_at, instant);
  new.scheduled_at := coalesce(new.scheduled_at, instant);
  new.correlation_id := coalesce(new.correlation_id, gen_random_uuid()::text);
  new.priority := coalesce(new.priority, declared_priority, 100::smallint);
  new.max_attempts := coalesce(new.max_attempts, declared_attempts, 5::smallint);
  new.unique_while := coalesce(held_while, 'waiting');
  if lifetime is not null then
    new.expires_at := coalesce(new.expires_at, instant + lifetime);
  end if;
  if new.on_conflict is not null then
    mode := new.on_conflict;
    if mode not in ('keep', 'refuse', 'replace') then
      raise exception 'on_conflict "%" is none of keep, refuse, replace', mode using errcode = 'check_violation';
    end if;
    new.on_conflict := null;
  end if;
  if follows then
    new.parent_id := coalesce(new.parent_id, nullif(current_setting('worker.parent', true), '')::bigint);
    new.enqueued_by := coalesce(nullif(current_setting('worker.enqueuer', true), ''), new.enqueued_by);
  end if;

  if new.status = 'pending'
     and coalesce(unique_template, concurrency_template, coalesce_template) is not null then
    new := worker.keyed(new, unique_template, concurrency_template, coalesce_template, instant);
  end if;
  if new.unique_key is not null and new.status = 'pending' then
    new.held_key := new.unique_key;
    holder_id := worker.meet(new, coalesce(mode, 'keep'), instant);
    if holder_id is not null then
      -- The note survives if that job starts before we commit, and then becomes a job of its own.
      if coalesce(mode, 'keep') = 'keep' and new.unique_while = 'waiting' then
        insert into worker.kept (job_id, enqueued_by) values (holder_id, new.enqueued_by);
      end if;
      perform set_config('worker.holder', holder_id::text, true);  -- worker.enqueue reads it
      return null;
    end if;
  end if;
  if gated and new.status = 'pending' then
    new := worker.gated(new, instant, follows);
  end if;
  if audited then
    perform set_config('worker.audit', 'on', true);  -- worker.note_insert is called for it
  end if;
  return new;
end
$$;
comment on function worker.before_insert() is
  'Trigger: fills what is null from the declared type, checks tenants, applies on_conflict to the visible holder of the unique key';

create or replace function worker.invalid(job worker.job_queue, instant timestamptz, message text) returns worker.job_queue
language plpgsql immutable
as $$
begin
  job.status := 'failed';
  job.trouble := true;
  job.finish_reason := 'invalid';
  job.queued := false;
  job.held_key := null;
  job.finished_at := instant;
  job.errors := pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('attempt', 0, 'at', instant, 'message', message));
  return job;
end
$$;
comment on function worker.invalid(worker.job_queue, timestamptz, text) is 'The row as failed / invalid: kept and visible, never run';

-- Who fills a row itself says so in a column that is granted to nobody: worker.insert_many, or a restore of a dump.
create or replace trigger before_insert before insert on worker.job_queue
for each row when (new.unique_while is null) execute function worker.before_insert();
