-- Two tables, one step. Both read the match reports: the honours for the awards of player of the match, the records for
-- what the matches and the personal bests announced in them reached.

create or replace function club.refresh_season_honours(target_tenant_id uuid) returns integer
language sql
as $$
with award as materialized (
    select season_id, player_of_the_match as player_id, count(*) as awards
      from club.match_report
     where tenant_id = target_tenant_id
     group by season_id, player_of_the_match
), tally as (
    select season_id, player_id, count(*) as games, count(*) filter (where result = 'win') as wins,
           sum(goals) as goals, sum(points) as points
      from club.appearances(target_tenant_id)
     group by season_id, player_id
), ranked as (
    select tally.season_id, merit.honour, tally.player_id, merit.value,
           row_number() over (partition by tally.season_id, merit.honour
                                  order by merit.value desc, tally.wins desc, tally.games, tally.player_id) as place
      from tally
      left join award on award.season_id = tally.season_id and award.player_id = tally.player_id
      join club.rules on rules.tenant_id = target_tenant_id
     cross join lateral (values ('champion',            tally.points,          tally.games >= season_minimum_games),
                                ('top_scorer',          tally.goals,           tally.goals > 0),
                                ('player_of_the_match', coalesce(awards, 0),   awards > 0))
                     as merit (honour, value, eligible)
     where merit.eligible
), fresh as (
    select target_tenant_id as tenant_id, season_id, honour, place, player_id, value,
           not exists (select from club.match
                        where match.tenant_id = target_tenant_id and match.season_id = ranked.season_id
                          and match.status = 'scheduled') as decided
      from ranked
     where place <= (select honours_size from club.rules where tenant_id = target_tenant_id)
), written as (
    insert into club.season_honours as kept
    select * from fresh
    on conflict (tenant_id, season_id, honour, place) do update
       set (player_id, value, decided) = (excluded.player_id, excluded.value, excluded.decided)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.season_honours as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh
                        where (fresh.season_id, fresh.honour, fresh.place) = (kept.season_id, kept.honour, kept.place))
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.refresh_season_honours(uuid) is
    'The honours part of update_aggregated_season_honours_and_records.';

create or replace function club.refresh_records(target_tenant_id uuid) returns integer
language sql
as $$
with announced as (
    select mark.record, mark.value, mark.match_id, mark.player_id, report.played_on
      from club.match_report as report
      join club.mark on mark.tenant_id = report.tenant_id and mark.match_id = report.match_id
     where report.tenant_id = target_tenant_id
), fresh as (
    select distinct on (record) target_tenant_id as tenant_id, record, value, match_id, player_id
      from announced
     order by record, value desc, played_on, match_id, player_id
), written as (
    insert into club.records as kept
    select * from fresh
    on conflict (tenant_id, record) do update
       set (value, match_id, player_id) = (excluded.value, excluded.match_id, excluded.player_id)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.records as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh where fresh.record = kept.record)
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.refresh_records(uuid) is
    'The records part of update_aggregated_season_honours_and_records.';

create or replace function club.update_aggregated_season_honours_and_records(target_tenant_id uuid) returns integer
language sql
as $$ select club.refresh_season_honours(target_tenant_id) + club.refresh_records(target_tenant_id) $$;
comment on function club.update_aggregated_season_honours_and_records(uuid) is
    'Fills season_honours and records from the raw matches and match_report, so it needs that step done. Returns the number of changed rows.';
