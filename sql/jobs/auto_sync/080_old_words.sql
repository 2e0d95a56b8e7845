-- The queue in the words of the first system, and what people look at.
--
--   pending → pending    running → processing    completed, failed → processed    skipped, cancelled → skipped
--
-- A user sees the jobs of own syncs; applications and whoever operates see all. So this view looks with its owner's eyes, and asks who
-- is there: row-level security of worker.job_queue goes by tenant, and an organizer is none.

create or replace function auto_sync.me() returns uuid
language sql stable set search_path = pg_catalog, pg_temp
as $$ select (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;
comment on function auto_sync.me() is 'The user whose token the request carries (its `sub`), or null.';

-- Casts, because only the queue's owner may build upon its types.
drop view if exists auto_sync.job_queue;
create view auto_sync.job_queue with (security_barrier = true) as
select j.id,
       s.id as sync_id,
       j.job_type::text as job_type,
       j.scheduled_at::timestamptz as scheduled_at,
       case j.status when 'pending' then 'pending' when 'running' then 'processing'
                     when 'completed' then 'processed' when 'failed' then 'processed' else 'skipped' end as status,
       j.created_at,
       j.finished_at as processed_at,
       coalesce(j.errors -> -1 ->> 'message', case when j.status in ('skipped', 'cancelled') then j.finish_reason end) as error_message
  from worker.job_queue j
  join auto_sync.auto_syncs s on s.id::text = j.payload ->> 'sync_id'
 where j.job_type in ('reminder_24h', 'pause_check_48h', 'auto_end_check')
   and (s.organizer_id = (select auto_sync.me()) or pg_has_role(current_user, 'worker_read', 'usage')
        or pg_has_role(current_user, 'worker_enqueue', 'usage'));
comment on view auto_sync.job_queue is 'Jobs of auto syncs in the words of the first system; a user sees those of own syncs.';

create or replace view auto_sync.doubtful with (security_invoker = true) as
select o.id, o.auto_sync_id, s.event_name, o.kind, c.name as contact, o.phone, o.reference, o.status, o.error, o.sending_at, o.job_id
  from auto_sync.outbox o
  join auto_sync.auto_syncs s on s.id = o.auto_sync_id
  left join auto_sync.contacts c on c.id = o.contact_id
 where o.status in ('sending', 'unknown');
comment on view auto_sync.doubtful is 'Messages that may or may not have arrived: unknown ones stay so, sending ones are under way, or asked for by the next attempt.';
