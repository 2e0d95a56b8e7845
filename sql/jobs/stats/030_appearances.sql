-- What all ten functions mean by a match and a player in it. These two functions and those after them are the rules;
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
-- `set enable_nestloop` and `rows` are for the planner. It takes a club it has no statistics of, new or just loaded, for
-- one row, and would then read everything once for each row of everything else: minutes instead of milliseconds.
-- Hash joins are right for a club of any size, and the row count keeps the callers from the same mistake. Before 18 a
-- join that cannot be hashed then has a price beyond all thresholds, and would be compiled each time: hence no jit.

create or replace function club.appearances(target_tenant_id uuid)
returns table (player_id bigint, match_id bigint, club_match bigint, season_id bigint, half integer, played_on date,
               retired boolean, team text, goals integer, margin integer, result text, heavy boolean,
               clean_sheet boolean, points numeric)
language sql stable rows 30000
set enable_nestloop = off set jit = off
as $$
with rules as materialized (
    select * from club.rules where tenant_id = target_tenant_id
), played as (
    select match.*, case when match.played_on < season.half_on then 1 else 2 end as half,
           row_number() over (order by match.played_on, match.id) as club_match
      from club.match
      join club.season on season.tenant_id = match.tenant_id and season.id = match.season_id
     where match.tenant_id = target_tenant_id and match.status = 'finished'
), seen as (
    select entry.player_id, entry.match_id, played.club_match, played.season_id, played.half, played.played_on,
           player.retired, entry.team, entry.goals,
           case entry.team when 'a' then played.team_a_score - played.team_b_score
                           else played.team_b_score - played.team_a_score end as margin,
           case entry.team when 'a' then played.team_b_score else played.team_a_score end = 0 as clean_sheet
      from played
      join club.player_match as entry on entry.tenant_id = target_tenant_id and entry.match_id = played.id
      join club.player on player.tenant_id = target_tenant_id and player.id = entry.player_id and not player.ringer
)
select player_id, match_id, club_match, season_id, half, played_on, retired, team, goals, margin,
       case sign(margin) when 1 then 'win' when 0 then 'draw' else 'loss' end,
       abs(margin) >= (select heavy_margin from rules),
       clean_sheet,
       goals * (select points_goal from rules)
           + case when clean_sheet then (select points_clean_sheet from rules) else 0 end
           + case sign(margin) when 1 then (select points_win from rules)
                               when 0 then (select points_draw from rules)
                               else (select points_loss from rules) end
           + case when abs(margin) < (select heavy_margin from rules) then 0
                  when margin > 0 then (select points_heavy_win from rules)
                  else (select points_heavy_loss from rules) end
  from seen
$$;
comment on function club.appearances(uuid) is
    'One row for each player, ringers apart, and finished match: the raw material. club_match numbers the club''s matches.';

-- How long each run is after each of a player's matches: the matches played so far, less those up to the last one that
-- broke the run. One sort serves all five; `attendance` breaks *before* a match that does not follow the last one.
create or replace function club.streaks(target_tenant_id uuid)
returns table (player_id bigint, match_id bigint, season_id bigint, played_on date, club_match bigint, played bigint,
               goals integer, win bigint, unbeaten bigint, losing bigint, scoring bigint, attendance bigint)
language sql stable rows 30000
as $$
select player_id, match_id, season_id, played_on, club_match, played, goals,
       played - coalesce(max(played) filter (where result <> 'win')  over career, 0),
       played - coalesce(max(played) filter (where result =  'loss') over career, 0),
       played - coalesce(max(played) filter (where result <> 'loss') over career, 0),
       played - coalesce(max(played) filter (where goals = 0)        over career, 0),
       played - max(played) filter (where returned) over career + 1
  from (select appearance.*, row_number() over career as played,
               club_match - lag(club_match) over career is distinct from 1 as returned
          from club.appearances(target_tenant_id) as appearance
        window career as (partition by player_id order by club_match)) as numbered
window career as (partition by player_id order by club_match rows unbounded preceding)
$$;
comment on function club.streaks(uuid) is
    'The length of each run of a player after each of the player''s matches; played numbers these.';
