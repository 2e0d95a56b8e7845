-- Ending syncs, and forgetting them. Cancelling is a request on the job's row; the daemon that runs it does the rest.

create or replace function sync.cancel(user_id text, sync_id bigint default null, reason text default 'cancelled by the user')
returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    acting text := worker.current_tenant();
    run    sync.sync_runs;
begin
    select r.* into run from sync.sync_runs as r join worker.job_queue as j on j.id = r.sync_id
     where r.user_id = cancel.user_id and (acting is null or r.tenant_id = acting)
       and case when cancel.sync_id is null then j.finished_at is null else r.sync_id = cancel.sync_id end
     order by r.sync_id desc limit 1;
    if run.sync_id is null then
        raise exception 'user "%" has no %', user_id, coalesce('sync ' || sync_id, 'active sync') using errcode = 'SY004';
    end if;
    perform worker.cancel(run.sync_id, cancel.reason);
    if run.detect_job is not null then
        perform sync.cancel_job(run.detect_job, cancel.reason);
    end if;
    return sync.status(cancel.user_id, run.sync_id);
end
$$;
comment on function sync.cancel(text, bigint, text) is
    'Ends the active sync of a user, or the one of this id: at once while it waits; a running one is asked, and its SQL ended. What ended before stays as it was. Answers with its status; SY004 when there is none.';

create or replace function sync.cancel_job(job_id bigint, reason text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform worker.cancel(cancel_job.job_id, cancel_job.reason);
exception when sqlstate 'WK008' then
    null;  -- pruned since
end
$$;
comment on function sync.cancel_job(bigint, text) is 'Cancels a job that may be gone.';

create or replace function sync.force_clear(user_id text, tenant_id text default null)
returns table (job_id bigint, was text, is_now text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    tenant text := sync.tenant(tenant_id);
begin
    return query
    with known as (
        select j.id from worker.job_queue as j where j.job_type = 'sync' and j.held_key = 'sync:' || force_clear.user_id
        union
        select r.sync_id from sync.sync_runs as r where r.user_id = force_clear.user_id
        union
        select r.detect_job from sync.sync_runs as r where r.user_id = force_clear.user_id
    ), open as (
        select j.id, j.status from worker.job_queue as j join known on known.id = j.id
         where j.finished_at is null and j.tenant_id is not distinct from tenant
    )
    select open.id, open.status, worker.cancel(open.id, 'cleared by force') from open order by open.id;
end
$$;
comment on function sync.force_clear(text, text) is
    'Ends whatever is still open of a user''s syncs, detections too, however it came about; answers with each job, what it was and what it is now. A running one is asked, and ended within a second by its daemon, or by the one that takes over from a dead one.';

create or replace function sync.cleanup(older_than interval default '30 days', most integer default 10000,
    out syncs integer, out jobs integer, out alerts integer)
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    horizon timestamptz := worker.now() - older_than;
begin
    if older_than < interval '1 hour' then
        raise exception 'only what ended at least an hour ago is cleaned up' using errcode = 'SY002';
    end if;
    select coalesce(sum(worker.forget(t.name, older_than, most)), 0) into jobs
      from unnest('{sync,sync_detect,sync_alert,sync_all}'::text[]) as t (name);
    with gone as (
        delete from sync.sync_runs as r
         where r.sync_id = any (array(
                   select old.sync_id from sync.sync_runs as old
                    where old.requested_at < horizon
                      and not exists (select from worker.job_queue as j where j.id = old.sync_id)
                    order by old.sync_id limit most))
        returning true)
    select count(*) into syncs from gone;
    with gone as (delete from sync.alerts as a where a.raised_at < horizon returning true)
    select count(*) into alerts from gone;
end
$$;
comment on function sync.cleanup(interval, integer) is
    'Forgets syncs that ended longer ago than that, with their pages, detections and alerts, at most so many at a time; orders and claims stay. Answers with how many went.';
