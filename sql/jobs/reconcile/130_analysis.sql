-- What `worker reconcile --analyze` shows. These functions only read.

create or replace function league.largest_competitions(number integer default 20)
returns table (competition_id text, teams bigint, seasons bigint, latest timestamptz)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select competition_id, sum(clubs)::bigint, count(*), max(newest)
  from (select competition_id, season_year, count(*) as clubs, max(created_at) as newest
          from league.teams
         group by competition_id, season_year) as season
 group by competition_id
 order by sum(clubs) desc, competition_id
 limit number
$$;
comment on function league.largest_competitions(integer) is 'The competitions with the most teams: how many, over how many seasons, and when the latest came.';

create or replace function league.latest_progress(number integer default 10)
returns table (
    competition_id text, status text, seasons_discovered integer, worker_id text, started_at timestamptz,
    completed_at timestamptz, error_message text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select competition_id, status, seasons_discovered, worker_id, started_at, completed_at, error_message
  from league.competition_progress
 order by greatest(created_at, started_at, completed_at) desc, competition_id
 limit number
$$;
comment on function league.latest_progress(integer) is 'The records of competition_progress that were added, started or completed last.';

create or replace function league.best_completion(number integer default 10)
returns table (competition_id text, completed bigint, total bigint, ratio double precision)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select competition_id, count(*) filter (where status = 'completed'), count(*),
       round(count(*) filter (where status = 'completed')::numeric / count(*), 3)::double precision
  from league.season_progress
 group by competition_id
 order by 4 desc, 3 desc, competition_id
 limit number
$$;
comment on function league.best_completion(integer) is 'The competitions of season_progress with the largest share of completed seasons, the larger ones first.';
