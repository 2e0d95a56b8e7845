-- Roles and the schema. Roles belong to the whole cluster, so each may be there already.
--
--   worker_owner    owns every object; nobody logs in as it
--   worker_run      the daemon
--   worker_enqueue  applications: may insert jobs and cancel their own pending ones
--   worker_tenant   end users of a multi-tenant application: own rows only, declared types only
--   worker_operate  operators: cancel any job, retry, pause
--   worker_read     the views

do $$
declare
  wanted text;
begin
  foreach wanted in array array['worker_owner', 'worker_run', 'worker_enqueue', 'worker_tenant', 'worker_operate', 'worker_read'] loop
    continue when exists (select from pg_roles where rolname = wanted);
    begin
      execute format('create role %I nologin', wanted);
    exception when duplicate_object or unique_violation then
      null;  -- another database of this cluster made it, perhaps just now
    end;
  end loop;
  -- Since 16 the creator of a role is a member without SET and INHERIT, which 'member' does not tell; 15 knows no 'set'.
  if not pg_has_role(current_user, 'worker_owner',
                     case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end)
     or not pg_has_role(current_user, 'worker_owner', 'usage') then
    execute format('grant worker_owner to %I', current_user);
  end if;
end
$$;

create schema worker authorization worker_owner;

set local role worker_owner;

comment on schema worker is 'job-queue-worker: the queue, its functions and its views';

create table worker.migration (
  name       text primary key,
  digest     text not null,
  applied_at timestamptz not null default clock_timestamp()
);
comment on table worker.migration is 'Files of sql/ that are applied, with their sha256';

grant usage on schema worker to worker_run, worker_enqueue, worker_tenant, worker_operate, worker_read;

reset role;

do $$
begin
  -- Follow-up jobs are inserted by functions of the owner, which therefore counts as an application;
  -- whoever runs or operates may also look.
  if not pg_has_role('worker_owner', 'worker_enqueue', 'member') then grant worker_enqueue to worker_owner; end if;
  if not pg_has_role('worker_operate', 'worker_read', 'member') then grant worker_read to worker_operate; end if;
  if not pg_has_role('worker_run', 'worker_read', 'member') then grant worker_read to worker_run; end if;
end
$$;
