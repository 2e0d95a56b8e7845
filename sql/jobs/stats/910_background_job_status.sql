-- The queue in the words of the first system, so that pages and scripts that know only them go on unchanged.
--
--   pending → queued    running → processing    completed, skipped → completed    failed, cancelled → failed
--
-- Writing works too: a row is an enqueue, a row whose payload has retryOf is a retry of that job.

-- Casts, because only the queue's owner may build upon its types.
drop view if exists club.background_job_status;
create view club.background_job_status with (security_invoker = true) as
select j.id::text as id,
       j.job_type::text as job_type,
       j.payload::jsonb as job_payload,
       case j.status when 'pending' then 'queued' when 'running' then 'processing' when 'completed' then 'completed'
                     when 'skipped' then 'completed' else 'failed' end as status,
       j.started_at,
       j.finished_at as completed_at,
       greatest(j.attempt - 1, 0) as retry_count,
       case when j.priority < 100 then 2 else 1 end as priority,
       j.tenant_id::text as tenant_id,
       j.last_error as error_message,
       case when steps.total > 0 then jsonb_build_object(
           'total_functions', steps.total,
           'successful_functions', steps.completed,
           'failed_functions', steps.failed,
           'cache_invalidation_success', (select bool_and(child.status = 'completed') from worker.job_queue child
                                           where child.parent_id = j.id and child.job_type = 'invalidate_cache'),
           'function_results', steps.results) end as results,
       j.created_at,
       coalesce(j.finished_at, j.started_at, j.created_at) as updated_at
  from worker.jobs j
 cross join lateral (
       select count(*) as total,
              count(*) filter (where s.status = 'completed') as completed,
              count(*) filter (where s.status = 'failed') as failed,
              jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                  'function', s.name,
                  'status', case s.status when 'completed' then 'success' else s.status end,
                  'duration', round(1000 * extract(epoch from s.finished_at - s.started_at)),
                  'error', s.error)) order by s.started_at, s.name) as results
         from worker.job_step s where s.job_id = j.id) steps
 where j.job_type = 'stats_update';
comment on view club.background_job_status is 'stats_update jobs in the words of the first system; inserting enqueues, or retries with retryOf';

create or replace function club.enter_background_job() returns trigger
language plpgsql
as $$
declare
    asked  jsonb := coalesce(new.job_payload, '{}');
    source text := case asked ->> 'triggeredBy' when 'post-match' then 'match' when 'cron' then 'nightly' else 'admin' end;
begin
    if asked ->> 'retryOf' is not null then
        perform worker.retry((asked ->> 'retryOf')::bigint);
        new.id := asked ->> 'retryOf';
    else
        -- The first system's payloads name the tenant tenantId.
        asked := asked || jsonb_strip_nulls(jsonb_build_object('tenant_id',
            coalesce(new.tenant_id, asked ->> 'tenant_id', asked ->> 'tenantId')));
        new.id := worker.enqueue(
            job_type       => coalesce(new.job_type, 'stats_update'),
            payload        => asked,
            priority       => case when new.priority >= 2 then 50 when source = 'nightly' then 200 else 100 end,
            correlation_id => asked ->> 'requestId',
            source         => source)::text;
    end if;
    select b.status, b.created_at into new.status, new.created_at from club.background_job_status b where b.id = new.id;
    return new;
end
$$;
comment on function club.enter_background_job() is 'Trigger: an insert into the view is an enqueue, or with retryOf a retry';

create or replace trigger enter_background_job instead of insert on club.background_job_status
    for each row execute function club.enter_background_job();
