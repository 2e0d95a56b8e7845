-- A match weighs 0.5 ^ (days before the club's latest match / power_half_life_days). The rating is the weighed mean of a
-- player's points. Decay runs from the latest match and not from today: the ratings of a club that rests do not move.
--
-- The weights are rounded to 12 digits, so that the sums are exact and do not depend on the order of the rows.
-- Looking back needs no second set of weights: moving the day of reference multiplies all of them alike, and a mean
-- does not notice. So the earlier rating is the same mean over the matches up to then.

create or replace function club.weight(days integer, half_life double precision) returns numeric
language sql immutable
as $$ select round(power(0.5::double precision, days / half_life)::numeric, 12) $$;
comment on function club.weight(integer, double precision) is 'What a match weighs so many days later.';

create or replace function club.update_power_ratings(target_tenant_id uuid) returns integer
language sql
as $$
with day as materialized (
    select max(played_on) as latest, max(played_on) - min(power_trend_days) as earlier,
           min(power_half_life_days) as half_life, min(power_minimum_games) as minimum_games
      from club.match
      join club.rules using (tenant_id)
     where tenant_id = target_tenant_id and status = 'finished'
), weighed as (
    select appearance.*, played_on <= day.earlier as is_earlier,
           club.weight(day.latest - played_on, day.half_life) as weight
      from club.appearances(target_tenant_id) as appearance
     cross join day
), whole as (
    select sum(club.weight(day.latest - played_on, day.half_life)) as weight
      from club.match
     cross join day
     where tenant_id = target_tenant_id and status = 'finished'
), mean as (
    select player_id, count(*) as games, count(*) filter (where result = 'win') as wins,
           round(sum(weight * points) / nullif(sum(weight), 0), 2) as rating,
           round(sum(weight * goals) / nullif(sum(weight), 0), 2)  as goal_threat,
           round(100 * sum(weight) / (select weight from whole), 1) as participation,
           round(sum(weight * points) filter (where is_earlier) / nullif(sum(weight) filter (where is_earlier), 0), 2)
               as earlier_rating
      from weighed
     where not retired
     group by player_id
), fresh as (
    select target_tenant_id as tenant_id, player_id, games, rating, goal_threat, participation, earlier_rating,
           rating - coalesce(earlier_rating, rating) as trend,
           row_number() over (order by rating desc, wins desc, games, player_id) as rank
      from mean
     where games >= (select minimum_games from day) and rating is not null
), written as (
    insert into club.player_power_rating as kept
    select * from fresh
    on conflict (tenant_id, player_id) do update
       set (games, rating, goal_threat, participation, earlier_rating, trend, rank)
         = (excluded.games, excluded.rating, excluded.goal_threat, excluded.participation, excluded.earlier_rating,
            excluded.trend, excluded.rank)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.player_power_rating as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh where fresh.player_id = kept.player_id)
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_power_ratings(uuid) is
    'Fills player_power_rating: points a match decayed by age, with a trend. Returns the number of changed rows.';
