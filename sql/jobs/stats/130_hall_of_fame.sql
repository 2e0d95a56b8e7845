-- Reads all_time_stats and not the matches: whoever runs it first gets the hall of fame of the last run.

create or replace function club.update_aggregated_hall_of_fame(target_tenant_id uuid) returns integer
language sql
as $$
with ranked as (
    select stats.tenant_id, merit.category, stats.player_id, merit.value, rules.hall_of_fame_size,
           row_number() over (partition by merit.category
                                  order by merit.value desc, stats.wins desc, stats.games, stats.player_id) as place
      from club.all_time_stats as stats
      join club.rules on rules.tenant_id = stats.tenant_id
      join club.player on player.tenant_id = stats.tenant_id and player.id = stats.player_id
     cross join lateral (values ('games', stats.games), ('goals', stats.goals), ('wins', stats.wins),
                                ('clean_sheets', stats.clean_sheets), ('points', stats.points),
                                ('points_per_game', stats.points_per_game), ('win_rate', stats.win_rate))
                     as merit (category, value)
     where stats.tenant_id = target_tenant_id
       and stats.games >= rules.hall_of_fame_minimum_games
       and not player.retired and not player.ringer
       and merit.value > 0
), fresh as (
    select tenant_id, category, place, player_id, value
      from ranked
     where place <= hall_of_fame_size
), written as (
    insert into club.hall_of_fame as kept
    select * from fresh
    on conflict (tenant_id, category, place) do update
       set (player_id, value) = (excluded.player_id, excluded.value)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.hall_of_fame as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh where (fresh.category, fresh.place) = (kept.category, kept.place))
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_aggregated_hall_of_fame(uuid) is
    'Fills hall_of_fame from all_time_stats, so it needs that step done. Returns the number of changed rows.';
