-- Removes job-queue-worker from this database: every job, finished ones too, and all that it made.
-- Nothing of it is executed until you do: worker uninstall --print | psql -X -v ON_ERROR_STOP=1 "$DATABASE_URL"
-- Stop the daemons first. Triggers and functions of yours that call worker.enqueue fail from then on: drop them as well.

begin;

-- The opt-in wrapper of sql/optional/, and nobody else's function of that name.
do $$
declare
  wrapper regprocedure := to_regprocedure('public.enqueue_job(text, jsonb)');
begin
  if obj_description(wrapper, 'pg_proc') like 'job-queue-worker:%' then
    execute format('drop function %s', wrapper);
  end if;
end
$$;

-- With it goes whatever of yours depends on it: views over worker.jobs, columns of its types, foreign keys.
drop schema if exists worker cascade;

commit;

-- Roles belong to the whole server, and other databases of it may use them. Only when none does:
-- drop owned by worker_run, worker_enqueue, worker_tenant, worker_operate, worker_read, worker_owner;
-- drop role worker_run, worker_enqueue, worker_tenant, worker_operate, worker_read, worker_owner;
