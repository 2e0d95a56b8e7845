-- What is to be done, and nothing else decides it: the dry run prints these rows, reconcile_apply writes them.
--
-- The evidence is counted from teams alone, so a competition with two addresses has no more teams than one with none.
-- The bounds are scalar subqueries, which an index scan can use; the planner's guess for them is low, and a nested loop
-- over what it takes for few rows would be quadratic.

create or replace function league.reconcile_plan(
    first_competition text default null, last_competition text default null, live interval default '30 minutes')
returns table (
    record text, action text, competition_id text, season_year text, season_id text, competition_url text,
    old_status text, old_count integer, new_count integer, worker_id text, completed_at timestamptz,
    teams integer, seasons integer)
language sql stable set search_path = pg_catalog, pg_temp set enable_nestloop = off
as $$
with bounds as (
    select coalesce(first_competition, '') as lowest,
           coalesce(last_competition, greatest((select max(competition_id) from league.teams),
                                               (select max(competition_id) from league.competition_progress),
                                               (select max(competition_id) from league.season_progress))) as highest
), season as materialized (
    select competition_id, season_year, count(*)::integer as clubs, max(created_at) as newest
      from league.teams
     where competition_id >= (select lowest from bounds) and competition_id <= (select highest from bounds)
     group by competition_id, season_year
), competition as materialized (
    select competition_id, sum(clubs)::integer as teams, count(*)::integer as seasons, max(newest) as newest
      from season
     group by competition_id
), address as (
    select distinct on (competition_id) competition_id, competition_url
      from league.competitions
     where competition_id >= (select lowest from bounds) and competition_id <= (select highest from bounds)
       and btrim(competition_url) <> ''
     order by competition_id, id
), competition_kept as (
    select * from league.competition_progress
     where competition_id >= (select lowest from bounds) and competition_id <= (select highest from bounds)
), season_kept as (
    select * from league.season_progress
     where competition_id >= (select lowest from bounds) and competition_id <= (select highest from bounds)
), competition_found as (
    select 'competition' as record,
           case when kept.competition_id is null then 'add'
                when competition.competition_id is null then case when kept.status = 'completed' then 'unproven' end
                when kept.status = 'completed' and kept.seasons_discovered = competition.seasons
                     and kept.completed_at is not null
                     and (address.competition_id is null
                          or kept.competition_url <> 'MISSING_URL_FOR_' || kept.competition_id)
                     then null
                when league.held(kept.status, kept.started_at, live) then 'held'
                else 'update' end as action,
           competition_id, null::text as season_year, null::text as season_id,
           case when kept.competition_url <> 'MISSING_URL_FOR_' || competition_id then kept.competition_url
                else coalesce(address.competition_url, 'MISSING_URL_FOR_' || competition_id) end as competition_url,
           kept.status as old_status, kept.seasons_discovered as old_count,
           coalesce(competition.seasons, 0) as new_count, kept.worker_id, competition.newest as completed_at
      from competition
      full join competition_kept as kept using (competition_id)
      left join address using (competition_id)
), season_found as (
    select 'season' as record,
           case when kept.competition_id is null then 'add'
                when season.competition_id is null then case when kept.status = 'completed' then 'unproven' end
                when kept.status = 'completed' and kept.clubs_saved = season.clubs and kept.completed_at is not null
                     then null
                when league.held(kept.status, kept.started_at, live) then 'held'
                else 'update' end as action,
           competition_id, season_year,
           coalesce(kept.season_id, competition_id || '_' || season_year) as season_id, null::text as competition_url,
           kept.status as old_status, kept.clubs_saved as old_count, coalesce(season.clubs, 0) as new_count,
           kept.worker_id, season.newest as completed_at
      from season
      full join season_kept as kept using (competition_id, season_year)
)
select found.*, coalesce(competition.teams, 0), coalesce(competition.seasons, 0)
  from (select * from competition_found union all select * from season_found) as found
  left join competition using (competition_id)
 where found.action is not null
 order by found.competition_id, found.record, found.season_year
$$;
comment on function league.reconcile_plan(text, text, interval) is
    'What reconcile_apply would do with the competitions from the first to the last (null: with all), a row for each record of progress that differs from the teams that are there. action: add, update, held (a live worker has it in hand), unproven (completed, and no team is there: reported, never changed).';

create or replace function league.reconcile_batches(size integer default 500)
returns table (first_competition text, last_competition text, competitions integer)
language sql stable set search_path = pg_catalog, pg_temp
as $$
with known as (
    select competition_id from league.teams
    union select competition_id from league.competition_progress
    union select competition_id from league.season_progress
), numbered as (
    select competition_id, (row_number() over (order by competition_id) - 1) / size as batch from known
)
select min(competition_id), max(competition_id), count(*)::integer from numbered group by batch order by batch
$$;
comment on function league.reconcile_batches(integer) is
    'All competitions, cut into stretches of so many: the bounds that reconcile_plan and reconcile_apply take.';

create or replace function league.has_teams(wanted_competition text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$ select exists (select from league.teams where competition_id = wanted_competition) $$;
comment on function league.has_teams(text) is 'Whether there is any evidence of this competition.';
