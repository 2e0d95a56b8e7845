-- What all ten functions mean by a match and a player in it. These views and the functions after them are the rules;
-- docs/systems/stats.md says them once more in prose, and the tests compute them a second time in Python.
--
--   match          Only finished matches count. They are in the order of (played_on, id). Its season is the one it
--                  names; it lies in the second half when it is played on or after the season's half_on.
--   result         A player wins, draws or loses with the team. A clean sheet is a match in which the team conceded
--                  nothing; a win or a loss is heavy when the difference is at least heavy_margin.
--   points         points_win, points_draw or points_loss, + points_heavy_win or points_heavy_loss,
--                  + points_clean_sheet, + points_goal for each own goal scored. This is the only currency.
--   ringer         Plays, but has no row in any aggregate. Retired players stay in season_stats, all_time_stats,
--                  personal_bests, player_profile_stats, season_honours and records, and are left out of hall_of_fame,
--                  recent_performance, season_race_data and player_power_rating.
--   streak         win, unbeaten, losing and scoring streaks run over the player's *own* matches: staying away does not
--                  end them. The attendance streak runs over the *club's* matches: staying away ends it.
--                  A run of one is not yet a streak (it counts as a current or longest run, not as a best).
--   ties           In every ranking: higher value, then more wins, then fewer games, then the lower player id.
--   rounding       Points a game and ratings to 2 digits, percentages to 1; half away from zero.
--
-- The views are security_invoker: row-level security on the base tables means the caller's, not the owner's.

create or replace view club.side with (security_invoker = true) as
select match.tenant_id, match.id as match_id, match.season_id, match.played_on,
       case when match.played_on < season.half_on then 1 else 2 end as half,
       side.team, side.scored, side.scored - side.conceded as margin,
       case when side.scored > side.conceded then 'win' when side.scored = side.conceded then 'draw' else 'loss' end
           as result,
       abs(side.scored - side.conceded) >= rules.heavy_margin as heavy,
       side.conceded = 0 as clean_sheet,
       case when side.conceded = 0 then rules.points_clean_sheet else 0 end
           + case when side.scored = side.conceded then rules.points_draw
                  when side.scored > side.conceded then rules.points_win
                  else rules.points_loss end
           + case when abs(side.scored - side.conceded) < rules.heavy_margin then 0
                  when side.scored > side.conceded then rules.points_heavy_win
                  else rules.points_heavy_loss end as points,
       rules.points_goal
  from club.match
  join club.season on season.tenant_id = match.tenant_id and season.id = match.season_id
  join club.rules on rules.tenant_id = match.tenant_id
 cross join lateral (values ('a', match.team_a_score, match.team_b_score),
                            ('b', match.team_b_score, match.team_a_score)) as side (team, scored, conceded)
 where match.status = 'finished';
comment on view club.side is 'A finished match seen from each of its two teams, with the points that the team earns its players.';

create or replace view club.appearance with (security_invoker = true) as
select entry.tenant_id, entry.player_id, entry.match_id, side.season_id, side.half, side.played_on, player.retired,
       entry.team, entry.goals, side.margin, side.result, side.heavy, side.clean_sheet,
       side.points + entry.goals * side.points_goal as points
  from club.player_match as entry
  join club.side on side.tenant_id = entry.tenant_id and side.match_id = entry.match_id and side.team = entry.team
  join club.player on player.tenant_id = entry.tenant_id and player.id = entry.player_id and not player.ringer;
comment on view club.appearance is 'One row for each player, ringers apart, and finished match: the raw material of the statistics.';

-- How long each run is after each of a player's matches: the matches played so far, less those up to the last one that
-- broke the run. One sort serves all five; `attendance` breaks *before* a match that does not follow the last one.
create or replace view club.streak with (security_invoker = true) as
select tenant_id, player_id, match_id, season_id, played_on, club_match, played, goals, points,
       played - coalesce(max(played) filter (where result <> 'win')  over career, 0) as win,
       played - coalesce(max(played) filter (where result =  'loss') over career, 0) as unbeaten,
       played - coalesce(max(played) filter (where result <> 'loss') over career, 0) as losing,
       played - coalesce(max(played) filter (where goals = 0)        over career, 0) as scoring,
       played - max(played) filter (where returned) over career + 1                  as attendance
  from (select appearance.*, calendar.club_match,
               row_number() over career as played,
               calendar.club_match - lag(calendar.club_match) over career is distinct from 1 as returned
          from club.appearance
          join (select tenant_id, id, row_number() over (partition by tenant_id order by played_on, id) as club_match
                  from club.match
                 where status = 'finished') as calendar
            on calendar.tenant_id = appearance.tenant_id and calendar.id = appearance.match_id
        window career as (partition by appearance.tenant_id, appearance.player_id order by calendar.club_match))
       as numbered
window career as (partition by tenant_id, player_id order by club_match rows unbounded preceding);
comment on view club.streak is 'The length of each run of a player after each match; club_match numbers the club''s matches, played the player''s.';
