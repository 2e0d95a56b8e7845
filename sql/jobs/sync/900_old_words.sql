-- Syncs and detections in the words of the first system, to read: pages and scripts that know only them go on unchanged.

create or replace view sync.sync_progress with (security_barrier) as
select s.sync_id as id,
       s.user_id,
       s.tenant_id,
       's' || s.sync_id as sync_id,
       round(s.progress / 20.0)::integer as step,
       5 as total_steps,
       case when s.status = 'running' then s.phase else s.status end as current_step,
       s.status,
       s.progress,
       jsonb_strip_nulls(jsonb_build_object('provider', s.provider, 'startedAt', s.started_at, 'orders', s.orders,
                                            'cancelReason', s.cancel_reason)) as metadata,
       s.error ->> 'code' as error_code,
       s.error as error_details,
       s.retry_count,
       s.next_retry_at,
       (select max(c.finished_at) from sync.syncs as c where c.user_id = s.user_id and c.status = 'completed'
           and c.tenant_id is not distinct from s.tenant_id) as last_successful_sync_at,
       s.created_at,
       coalesce(s.finished_at, s.started_at, s.created_at) as updated_at
  from sync.syncs as s;
comment on view sync.sync_progress is 'sync.syncs as the first system''s table had it: step 0 to 5, status in its corrected words.';

create or replace view sync.detection_queue with (security_barrier) as
select j.id,
       r.user_id as seller_id,
       r.sync_id,
       case j.status when 'pending' then 'pending' when 'running' then 'processing' when 'completed' then 'completed'
                     else 'failed' end as status,
       j.priority::smallint as priority,
       j.payload::jsonb as payload,
       j.finished_at as processed_at,
       j.created_at
  from sync.sync_runs as r
  join worker.job_queue as j on j.id = r.detect_job
 where sync.sees(r.tenant_id, r.user_id);
comment on view sync.detection_queue is 'The detections of syncs in the words of the first system.';
