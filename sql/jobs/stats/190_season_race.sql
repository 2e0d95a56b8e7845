-- The current season is the one of the latest finished match. Its leaders at this moment are followed from its first
-- match on; after each match every one of them has a row, also who did not play.

create or replace function club.update_aggregated_season_race_data(target_tenant_id uuid) returns integer
language sql
as $$
with current as materialized (
    select season_id
      from club.match
     where tenant_id = target_tenant_id and status = 'finished'
     order by played_on desc, id desc
     limit 1
), calendar as materialized (
    select id as match_id, season_id, row_number() over (order by played_on, id) as match_number
      from club.match
     where tenant_id = target_tenant_id and status = 'finished' and season_id = (select season_id from current)
), earned as materialized (
    select player_id, match_id, points, result
      from club.appearances(target_tenant_id)
     where season_id = (select season_id from current) and not retired
), leader as (
    select player_id
      from earned
     group by player_id
     order by sum(points) desc, count(*) filter (where result = 'win') desc, count(*), player_id
     limit (select race_size from club.rules where tenant_id = target_tenant_id)
), so_far as (
    select calendar.season_id, calendar.match_number, leader.player_id, calendar.match_id,
           sum(coalesce(earned.points, 0)) over run                        as points,
           count(*) filter (where earned.result = 'win') over run          as wins,
           count(earned.match_id) over run                                 as games
      from calendar
     cross join leader
      left join earned on earned.match_id = calendar.match_id and earned.player_id = leader.player_id
    window run as (partition by leader.player_id order by calendar.match_number rows unbounded preceding)
), fresh as (
    select target_tenant_id as tenant_id, season_id, match_number, player_id, match_id, points,
           row_number() over (partition by match_number order by points desc, wins desc, games, player_id) as position
      from so_far
), written as (
    insert into club.season_race_data as kept
    select * from fresh
    on conflict (tenant_id, season_id, match_number, player_id) do update
       set (match_id, points, position) = (excluded.match_id, excluded.points, excluded.position)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.season_race_data as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh
                        where (fresh.season_id, fresh.match_number, fresh.player_id)
                            = (kept.season_id, kept.match_number, kept.player_id))
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_aggregated_season_race_data(uuid) is
    'Fills season_race_data from the matches of the current season. Returns the number of changed rows.';
