-- Teammates are pairs, the one quadratic thing here: 16 players a match make 8 × 7 × 2 pairs.

create or replace function club.favourite_teammates(target_tenant_id uuid)
returns table (player_id bigint, teammate_id bigint, games_together bigint)
language sql stable rows 200
as $$
with own as materialized (
    select appearance.player_id, match_id, team from club.appearances(target_tenant_id) as appearance
)
select distinct on (pair.player_id) pair.player_id, pair.teammate_id, pair.games
  from (select own.player_id, other.player_id as teammate_id, count(*) as games
          from own
          join own as other on other.match_id = own.match_id and other.team = own.team and other.player_id <> own.player_id
         group by own.player_id, other.player_id) as pair
 order by pair.player_id, pair.games desc, pair.teammate_id
$$;
comment on function club.favourite_teammates(uuid) is 'With whom each player was most often in one team.';

create or replace function club.update_aggregated_player_profile_stats(target_tenant_id uuid) returns integer
language sql
as $$
with career as (
    select streak.*,
           played = count(*) over (partition by player_id) as is_last,
           -- the club's, not the latest of these rows: that match may have had none but ringers
           club_match = (select count(*) from club.match
                          where match.tenant_id = target_tenant_id and match.status = 'finished') as is_latest
      from club.streaks(target_tenant_id) as streak
), fresh as (
    select target_tenant_id as tenant_id, player_id,
           count(*) as games, count(distinct season_id) as seasons,
           sum(goals) as goals, round(sum(goals)::numeric / count(*), 2) as goals_per_game,
           count(*) filter (where goals >= hat_trick_goals) as hat_tricks,
           min(played_on) as first_match_on, max(played_on) as last_match_on,
           max(win)      filter (where is_last) as current_win,
           max(unbeaten) filter (where is_last) as current_unbeaten,
           max(losing)   filter (where is_last) as current_losing,
           max(scoring)  filter (where is_last) as current_scoring,
           coalesce(max(attendance) filter (where is_latest), 0) as current_attendance,
           max(win) as longest_win, max(unbeaten) as longest_unbeaten, max(losing) as longest_losing,
           max(scoring) as longest_scoring, max(attendance) as longest_attendance,
           min(mate.teammate_id) as favourite_teammate, coalesce(min(mate.games_together), 0) as games_together
      from career
      join club.rules on rules.tenant_id = target_tenant_id
      left join club.favourite_teammates(target_tenant_id) as mate using (player_id)
     group by player_id
), written as (
    insert into club.player_profile_stats as kept
    select * from fresh
    on conflict (tenant_id, player_id) do update
       set (games, seasons, goals, goals_per_game, hat_tricks, first_match_on, last_match_on,
            current_win, current_unbeaten, current_losing, current_scoring, current_attendance,
            longest_win, longest_unbeaten, longest_losing, longest_scoring, longest_attendance,
            favourite_teammate, games_together)
         = (excluded.games, excluded.seasons, excluded.goals, excluded.goals_per_game, excluded.hat_tricks,
            excluded.first_match_on, excluded.last_match_on,
            excluded.current_win, excluded.current_unbeaten, excluded.current_losing, excluded.current_scoring,
            excluded.current_attendance, excluded.longest_win, excluded.longest_unbeaten, excluded.longest_losing,
            excluded.longest_scoring, excluded.longest_attendance, excluded.favourite_teammate, excluded.games_together)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.player_profile_stats as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh where fresh.player_id = kept.player_id)
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_aggregated_player_profile_stats(uuid) is
    'Fills player_profile_stats from the raw matches. Returns the number of changed rows.';
