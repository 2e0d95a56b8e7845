-- For operators. Both run with the caller's own rights, and what they do is in worker.job_event under the caller's name.
--
-- A sync whose process died needs neither: the queue takes it over in seconds. Stuck is what shows no progress although
-- somebody has it, and what is due although nobody takes it. How long ago it was started says nothing.

create or replace function games.stuck(older interval default '2 hours') returns table (sync_id uuid, job_id bigint,
    user_id uuid, platform text, status text, phase text, still interval)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select s.id, s.job_id, s.user_id, s.platform, j.status, j.phase, worker.now() - since.at
  from worker.job_queue j
  join games.sync s on s.job_id = j.id
 cross join lateral (select case j.status when 'running' then greatest(s.moved_at, j.started_at)
                                          else greatest(s.moved_at, j.scheduled_at) end as at) as since
 where j.job_type = 'sync_games' and j.status in ('pending', 'running') and since.at < worker.now() - older
 order by since.at
$$;
comment on function games.stuck(interval) is
  'Syncs that run without progress, or are due and not taken, for longer than this.';

create or replace function games.cleanup_stuck(older interval default '2 hours') returns setof uuid
language sql set search_path = pg_catalog, pg_temp
as $$
select k.sync_id from games.stuck(older) as k, worker.cancel(k.job_id, 'cleaned up as stuck')
$$;
comment on function games.cleanup_stuck(interval) is
  'Cancels what is stuck, whatever its phase: a pending sync at once, a running one is ended by its daemon. Answers with their ids; their users can start again.';

create or replace function games.fix(sync_id uuid, reason text default 'ended by an operator') returns text
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    job bigint;
begin
    select s.job_id into job from games.sync s where s.id = fix.sync_id;
    if job is null then
        raise exception 'there is no sync %', fix.sync_id using errcode = 'GS404';
    end if;
    return worker.cancel(job, reason);
end
$$;
comment on function games.fix(uuid, text) is
  'Ends one sync. Answers with cancelled, with running where its daemon is asked to end it, or with the status of one that is over.';
