create or replace function club.update_aggregated_all_time_stats(target_tenant_id uuid) returns integer
language sql
as $$
with fresh as (
    select target_tenant_id as tenant_id, player_id,
           count(*) as games,
           count(*) filter (where result = 'win')            as wins,
           count(*) filter (where result = 'draw')           as draws,
           count(*) filter (where result = 'loss')           as losses,
           count(*) filter (where heavy and result = 'win')  as heavy_wins,
           count(*) filter (where heavy and result = 'loss') as heavy_losses,
           count(*) filter (where clean_sheet)               as clean_sheets,
           sum(goals) as goals, sum(margin) as goal_difference, sum(points) as points,
           round(sum(points) / count(*), 2) as points_per_game,
           round(100.0 * count(*) filter (where result = 'win') / count(*), 1) as win_rate,
           min(played_on) as first_match_on, max(played_on) as last_match_on
      from club.appearances(target_tenant_id)
     group by player_id
), written as (
    insert into club.all_time_stats as kept
    select * from fresh
    on conflict (tenant_id, player_id) do update
       set (games, wins, draws, losses, heavy_wins, heavy_losses, clean_sheets, goals, goal_difference,
            points, points_per_game, win_rate, first_match_on, last_match_on)
         = (excluded.games, excluded.wins, excluded.draws, excluded.losses, excluded.heavy_wins, excluded.heavy_losses,
            excluded.clean_sheets, excluded.goals, excluded.goal_difference, excluded.points, excluded.points_per_game,
            excluded.win_rate, excluded.first_match_on, excluded.last_match_on)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.all_time_stats as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh where fresh.player_id = kept.player_id)
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_aggregated_all_time_stats(uuid) is
    'Fills all_time_stats from the raw matches. Returns the number of changed rows.';
