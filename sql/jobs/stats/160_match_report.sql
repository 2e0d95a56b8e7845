-- One report for each finished match. It reads personal_bests, so that step comes first; season honours and records
-- read the reports, so that step comes after.
--
-- A record is what a match, or a personal best in it, reached, compared with all matches *before* it: more is broken, the
-- same is equaled, and the very first mark is neither. The table of records is not asked. It may already contain
-- this match, and then the second run of a report would call "equaled" what the first called "broken".

create or replace view club.mark with (security_invoker = true) as
select match.tenant_id, match.id as match_id, match.played_on, mark.record, null::bigint as player_id, mark.value
  from club.match
 cross join lateral (values ('biggest_win', abs(match.team_a_score - match.team_b_score)),
                            ('most_goals',  match.team_a_score + match.team_b_score)) as mark (record, value)
 where match.status = 'finished' and mark.value > 0
union all
select best.tenant_id, best.match_id, match.played_on, 'player_' || best.category, best.player_id, best.value
  from club.personal_bests as best
  join club.match on match.tenant_id = best.tenant_id and match.id = best.match_id and match.status = 'finished';
comment on view club.mark is 'What could be a record: the figures of a match, and the personal bests reached in it.';

-- The records part, apart from the rest because it is the part with a rule of its own.
create or replace function club.record_news(target_tenant_id uuid) returns table (match_id bigint, news jsonb)
language sql stable rows 2000
set enable_nestloop = off set jit = off -- as club.appearances, and for the same reason
as $$
with compared as (
    select mark.match_id, mark.record, mark.player_id, mark.value,
           max(mark.value) over (partition by mark.record, mark.match_id) as best_here,
           max(mark.value) over (partition by mark.record order by mark.played_on, mark.match_id
                                  groups between unbounded preceding and 1 preceding) as previous
      from club.mark
     where mark.tenant_id = target_tenant_id
)
select compared.match_id,
       jsonb_agg(jsonb_build_object('record', record, 'player_id', player_id, 'value', value, 'previous', previous,
                                    'outcome', case when value > previous then 'broken' else 'equaled' end)
                 order by record collate "C", player_id)
  from compared
 where value = best_here and value >= previous
 group by compared.match_id
$$;
comment on function club.record_news(uuid) is 'The records broken or equaled in each match, against the matches before it.';

create or replace function club.update_aggregated_match_report_cache(target_tenant_id uuid) returns integer
language sql
as $$
with best as materialized (
    select match_id,
           jsonb_agg(jsonb_build_object('player_id', player_id, 'category', category, 'value', value, 'previous', previous)
                     order by player_id, category collate "C") as news
      from club.personal_bests
     where tenant_id = target_tenant_id and previous is not null
     group by match_id
), star as materialized (
    select match_id,
           (array_agg(player_id order by points desc, goals desc, player_id))[1]              as player_of_the_match,
           (array_agg(player_id order by goals desc, player_id) filter (where goals > 0))[1]  as top_scorer,
           max(goals)                                                                         as top_scorer_goals
      from club.appearances(target_tenant_id)
     group by match_id
), fresh as (
    select match.tenant_id, match.id as match_id, match.season_id, match.played_on,
           case sign(match.team_a_score - match.team_b_score) when 1 then 'a' when -1 then 'b' end as winner,
           abs(match.team_a_score - match.team_b_score) as margin,
           match.team_a_score + match.team_b_score as goals,
           star.player_of_the_match, star.top_scorer, coalesce(star.top_scorer_goals, 0) as top_scorer_goals,
           coalesce(best.news, '[]') as personal_bests, coalesce(record.news, '[]') as records
      from club.match
      left join star on star.match_id = match.id
      left join best on best.match_id = match.id
      left join club.record_news(target_tenant_id) as record on record.match_id = match.id
     where match.tenant_id = target_tenant_id and match.status = 'finished'
), written as (
    insert into club.match_report as kept
    select * from fresh
    on conflict (tenant_id, match_id) do update
       set (season_id, played_on, winner, margin, goals, player_of_the_match, top_scorer, top_scorer_goals,
            personal_bests, records)
         = (excluded.season_id, excluded.played_on, excluded.winner, excluded.margin, excluded.goals,
            excluded.player_of_the_match, excluded.top_scorer, excluded.top_scorer_goals,
            excluded.personal_bests, excluded.records)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.match_report as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh where fresh.match_id = kept.match_id)
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_aggregated_match_report_cache(uuid) is
    'Fills match_report from the raw matches and personal_bests, so it needs that step done. Returns the number of changed rows.';
