-- Opt-in: public.enqueue_job(type, payload), for clients that reach the database through PostgREST (Supabase).
--
--   psql -X -v ON_ERROR_STOP=1 -f sql/optional/public_enqueue_job.sql "$DATABASE_URL"
--   grant worker_tenant to authenticated with inherit true;   -- PostgreSQL 16 and later; see docs/enqueue.md
--
-- It runs with the rights of its caller. So a tenant can enqueue only types whose producers include "tenant", only for
-- the tenant of its JWT, and cannot set keys, attempts or a priority before 100.

create or replace function public.enqueue_job(type text, payload jsonb default '{}') returns bigint
language sql volatile security invoker set search_path = pg_catalog, pg_temp
as $$
  select worker.enqueue(job_type => $1, payload => $2)
$$;
comment on function public.enqueue_job(text, jsonb) is
  'job-queue-worker: enqueues one job with the caller''s rights; answers with its id, or the id of the job that already holds its unique key';

revoke all on function public.enqueue_job(text, jsonb) from public;
grant execute on function public.enqueue_job(text, jsonb) to worker_tenant, worker_enqueue;

-- PostgREST keeps the schema in mind: tell it to look again.
notify pgrst, 'reload schema';
