-- Syncs in the words of the original: pending → fetching → analyzing → completed | failed.
--
-- A job between two attempts is pending, a cancelled one failed. A sync whose job is pruned says how it ended.

create or replace function games.syncs(of_user uuid default null, only_sync uuid default null, most integer default null)
returns table (id uuid, user_id uuid, platform text, username text, months_requested integer, status text,
    games_found integer, games_analyzed integer, error text, created_at timestamptz, updated_at timestamptz,
    completed_at timestamptz, job_id bigint, games_skipped integer, games_failed integer, percent integer)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
select s.id, s.user_id, s.platform, s.username, s.months,
       case when j.id is null then coalesce(s.outcome, 'failed')
            when j.status = 'running' then case j.phase when 'analyzing' then 'analyzing' else 'fetching' end
            when j.status = 'pending' then 'pending'
            when j.status in ('completed', 'skipped') then 'completed'
            else 'failed' end,
       c.found, c.done + c.known,
       case when j.id is null or j.status in ('completed', 'skipped') then s.error
            when j.status = 'cancelled' then 'cancelled: ' || coalesce(j.finish_reason, 'on request')
            else j.last_error end,
       s.created_at,
       greatest(s.moved_at, s.ended_at, j.started_at, j.finished_at),
       case when j.id is null then s.ended_at else j.finished_at end,
       s.job_id, c.skipped, c.failed,
       case when c.found > 0 then 100 * (c.done + c.skipped + c.failed) / c.found else 0 end
  from (select * from games.sync s
         where (of_user is null or s.user_id = of_user) and (only_sync is null or s.id = only_sync) and games.may(s.user_id)
         order by s.created_at desc, s.id
         limit most) as s
  left join worker.jobs j on j.id = s.job_id and j.job_type = 'sync_games'
 cross join lateral (
       select count(*)::integer as found,
              (count(*) filter (where g.status = 'done'))::integer as done,
              (count(*) filter (where g.status = 'skipped'))::integer as skipped,
              (count(*) filter (where g.status = 'skipped' and g.note = 'analysed before'))::integer as known,
              (count(*) filter (where g.status = 'failed'))::integer as failed
         from games.sync_game g where g.sync_id = s.id) as c
 order by s.created_at desc, s.id
$$;
comment on function games.syncs(uuid, uuid, integer) is
  'Syncs that the caller may see, newest first: of a user, one, so many. games_analyzed counts those analysed before as well.';

create or replace view games.sync_jobs as select * from games.syncs();
comment on view games.sync_jobs is 'Syncs in the words of the original: pending, fetching, analyzing, completed, failed.';

create or replace function games.status(sync_id uuid) returns setof games.sync_jobs
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    whose uuid;
begin
    select s.user_id into whose from games.sync s where s.id = status.sync_id;
    if whose is null then
        raise exception 'there is no sync %', status.sync_id using errcode = 'GS404';
    end if;
    perform games.check_user(whose);
    return query select * from games.syncs(whose, status.sync_id);
end
$$;
comment on function games.status(uuid) is 'One sync, as games.sync_jobs has it; raises GS404 for none, GS403 for another user''s.';

create or replace function games.recent(user_id uuid, most integer default 10) returns setof games.sync_jobs
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform games.check_user(recent.user_id);
    return query select * from games.syncs(recent.user_id, null, least(greatest(coalesce(most, 10), 1), 100));
end
$$;
comment on function games.recent(uuid, integer) is 'The last ten syncs of a user, or as many as asked for up to 100; raises GS403, GS404.';
