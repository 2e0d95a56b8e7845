-- Applies exactly the plan, in one statement, so that all of it stands on one snapshot. Whoever else reconciles waits;
-- workers do not: a row that somebody has locked, changed or added since the snapshot is theirs, and the answer calls it
-- held. So no lock of theirs is waited for while rows of ours are locked, but for that of a row which both are adding.

create or replace function league.reconcile_apply(
    first_competition text default null, last_competition text default null, live interval default '30 minutes')
returns table (
    record text, action text, competition_id text, season_year text, season_id text, competition_url text,
    old_status text, old_count integer, new_count integer, worker_id text, completed_at timestamptz,
    teams integer, seasons integer)
language plpgsql
set search_path = pg_catalog, pg_temp set enable_nestloop = off set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
    -- A stretch reads the records of its own competitions only, or many stretches would be quadratic.
    lowest  text := coalesce(first_competition, '');
    highest text := coalesce(last_competition, greatest((select max(competition_id) from league.competition_progress),
                                                        (select max(competition_id) from league.season_progress)));
begin
    perform pg_advisory_xact_lock(hashtextextended('league.reconcile', 0));
    return query
    with plan as materialized (
        select * from league.reconcile_plan(first_competition, last_competition, live)
    ), free_season as (
        select kept.competition_id, kept.season_year
          from league.season_progress as kept
          join plan on plan.record = 'season' and plan.action = 'update'
               and plan.competition_id = kept.competition_id and plan.season_year = kept.season_year
         where kept.competition_id between lowest and highest
           and (kept.status, kept.clubs_saved) = (plan.old_status, plan.old_count)
           and not league.held(kept.status, kept.started_at, live)
           for update of kept skip locked
    ), updated_season as (
        update league.season_progress as kept
           set status = 'completed', clubs_saved = plan.new_count, completed_at = plan.completed_at,
               worker_id = null, error_message = null
          from plan
          join free_season using (competition_id, season_year)
         where plan.record = 'season' and kept.competition_id between lowest and highest
           and kept.competition_id = plan.competition_id and kept.season_year = plan.season_year
        returning kept.competition_id, kept.season_year
    ), added_season as (
        insert into league.season_progress (competition_id, season_year, season_id, status, clubs_saved, completed_at)
        select plan.competition_id, plan.season_year, plan.season_id, 'completed', plan.new_count, plan.completed_at
          from plan
         where plan.record = 'season' and plan.action = 'add'
            on conflict do nothing
        returning competition_id, season_year
    ), free_competition as (
        select kept.competition_id
          from league.competition_progress as kept
          join plan on plan.record = 'competition' and plan.action = 'update'
               and plan.competition_id = kept.competition_id
         where kept.competition_id between lowest and highest
           and (kept.status, kept.seasons_discovered) = (plan.old_status, plan.old_count)
           and not league.held(kept.status, kept.started_at, live)
           for update of kept skip locked
    ), updated_competition as (
        update league.competition_progress as kept
           set status = 'completed', seasons_discovered = plan.new_count, competition_url = plan.competition_url,
               completed_at = plan.completed_at, worker_id = null, error_message = null
          from plan
          join free_competition using (competition_id)
         where plan.record = 'competition' and kept.competition_id between lowest and highest
           and kept.competition_id = plan.competition_id
        returning kept.competition_id
    ), added_competition as (
        insert into league.competition_progress
               (competition_id, competition_url, status, seasons_discovered, completed_at)
        select plan.competition_id, plan.competition_url, 'completed', plan.new_count, plan.completed_at
          from plan
         where plan.record = 'competition' and plan.action = 'add'
            on conflict do nothing
        returning competition_id
    ), written as (
        select 'season' as record, competition_id, season_year from updated_season
        union all select 'season', competition_id, season_year from added_season
        union all select 'competition', competition_id, null from updated_competition
        union all select 'competition', competition_id, null from added_competition
    )
    select plan.record,
           case when plan.action in ('add', 'update') and written.record is null then 'held' else plan.action end,
           plan.competition_id, plan.season_year, plan.season_id, plan.competition_url, plan.old_status, plan.old_count,
           plan.new_count, plan.worker_id, plan.completed_at, plan.teams, plan.seasons
      from plan
      left join written on written.record = plan.record and written.competition_id = plan.competition_id
           and coalesce(written.season_year, '') = coalesce(plan.season_year, '')
     order by plan.competition_id, plan.record, plan.season_year;
end
$$;
comment on function league.reconcile_apply(text, text, interval) is
    'Does what reconcile_plan says, in the caller''s transaction, and answers with its rows; add and update are done then. One reconcile at a time: another waits, as long as lock_timeout lets it. Rows that came into somebody''s hands meanwhile are left alone and called held.';

create or replace function league.set_timeouts(lock_wait interval, statement interval) returns void
language sql set search_path = pg_catalog, pg_temp
as $$
select set_config('lock_timeout', (1000 * extract(epoch from lock_wait))::bigint::text, true),
       set_config('statement_timeout', (1000 * extract(epoch from statement))::bigint::text, true)
$$;
comment on function league.set_timeouts(interval, interval) is
    'How long the statements after this one, to the end of the transaction, wait for a lock, and last. 0 is for ever.';
