-- All functions from here on have one shape. `fresh` is the table as it should be, its columns in the table's order; what
-- differs is written, what is gone is deleted, equal rows are not touched, and the number of changed rows is returned.
-- So a function that runs twice changes nothing, not even a row's xmin, and readers meet no empty moment. Functions leave
-- nothing behind on the connection, and every name is qualified, so the caller's search_path does not matter.

create or replace function club.update_half_and_full_season_stats(target_tenant_id uuid) returns integer
language sql
as $$
with tally as (
    -- half is null in the rows that stand for the full season
    select season_id, coalesce(half, 0) as half, player_id,
           count(*) as games,
           count(*) filter (where result = 'win')           as wins,
           count(*) filter (where result = 'draw')          as draws,
           count(*) filter (where result = 'loss')          as losses,
           count(*) filter (where heavy and result = 'win')  as heavy_wins,
           count(*) filter (where heavy and result = 'loss') as heavy_losses,
           count(*) filter (where clean_sheet)              as clean_sheets,
           sum(goals) as goals, sum(margin) as goal_difference, sum(points) as points
      from club.appearances(target_tenant_id)
     group by grouping sets ((season_id, player_id), (season_id, half, player_id))
), fresh as (
    select rules.tenant_id, season_id, half, player_id, games, wins, draws, losses, heavy_wins, heavy_losses, clean_sheets,
           goals, goal_difference, points,
           round(points / games, 2) as points_per_game, round(100.0 * wins / games, 1) as win_rate,
           case when games >= season_minimum_games
                then row_number() over (partition by season_id, half, games >= season_minimum_games
                                            order by points desc, wins desc, games, player_id) end as rank
      from tally
     cross join club.rules
     where rules.tenant_id = target_tenant_id
), written as (
    insert into club.season_stats as kept
    select * from fresh
    on conflict (tenant_id, season_id, half, player_id) do update
       set (games, wins, draws, losses, heavy_wins, heavy_losses, clean_sheets,
            goals, goal_difference, points, points_per_game, win_rate, rank)
         = (excluded.games, excluded.wins, excluded.draws, excluded.losses, excluded.heavy_wins, excluded.heavy_losses,
            excluded.clean_sheets, excluded.goals, excluded.goal_difference, excluded.points, excluded.points_per_game,
            excluded.win_rate, excluded.rank)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.season_stats as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh
                        where (fresh.season_id, fresh.half, fresh.player_id) = (kept.season_id, kept.half, kept.player_id))
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_half_and_full_season_stats(uuid) is
    'Fills season_stats from the raw matches: each season and each of its halves. Returns the number of changed rows.';
