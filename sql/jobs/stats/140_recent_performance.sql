create or replace function club.update_aggregated_recent_performance(target_tenant_id uuid) returns integer
language sql
as $$
with recent as (
    select player_id, match_id, played_on, result, goals, points,
           row_number() over (partition by player_id order by club_match desc) as ago
      from club.appearances(target_tenant_id)
     where not retired
), fresh as (
    select target_tenant_id as tenant_id, player_id,
           count(*) as games,
           count(*) filter (where result = 'win')  as wins,
           count(*) filter (where result = 'draw') as draws,
           count(*) filter (where result = 'loss') as losses,
           sum(goals) as goals, sum(points) as points,
           string_agg(upper(left(result, 1)), '' order by ago desc) as form,
           max(match_id)  filter (where ago = 1) as last_match_id,
           max(played_on) filter (where ago = 1) as last_match_on
      from recent
     where ago <= (select recent_matches from club.rules where tenant_id = target_tenant_id)
     group by player_id
), written as (
    insert into club.recent_performance as kept
    select * from fresh
    on conflict (tenant_id, player_id) do update
       set (games, wins, draws, losses, goals, points, form, last_match_id, last_match_on)
         = (excluded.games, excluded.wins, excluded.draws, excluded.losses, excluded.goals, excluded.points,
            excluded.form, excluded.last_match_id, excluded.last_match_on)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.recent_performance as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh where fresh.player_id = kept.player_id)
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_aggregated_recent_performance(uuid) is
    'Fills recent_performance from each player''s last matches. Returns the number of changed rows.';
