-- A best is a match after which a player stands higher than after any match before: goals in one match, or the length
-- of a run. A run that grows for five matches is five bests. The match report reads them by match_id.

create or replace function club.update_aggregated_personal_bests(target_tenant_id uuid) returns integer
language sql
as $$
with career as (
    select streak.*,
           max(goals)      over earlier as goals_before,
           max(win)        over earlier as win_before,
           max(unbeaten)   over earlier as unbeaten_before,
           max(losing)     over earlier as losing_before,
           max(scoring)    over earlier as scoring_before,
           max(attendance) over earlier as attendance_before
      from club.streaks(target_tenant_id) as streak
    window earlier as (partition by player_id order by club_match rows between unbounded preceding and 1 preceding)
), fresh as (
    select target_tenant_id as tenant_id, career.player_id, mark.category, career.match_id, mark.value,
           case when mark.previous >= mark.least then mark.previous end as previous
      from career
     cross join lateral (values ('goals',             career.goals::bigint, career.goals_before::bigint, 1),
                                ('win_streak',        career.win,           career.win_before,           2),
                                ('unbeaten_streak',   career.unbeaten,      career.unbeaten_before,      2),
                                ('losing_streak',     career.losing,        career.losing_before,        2),
                                ('scoring_streak',    career.scoring,       career.scoring_before,       2),
                                ('attendance_streak', career.attendance,    career.attendance_before,    2))
                     as mark (category, value, previous, least)
     where mark.value >= mark.least
       and mark.value > coalesce(mark.previous, 0)
), written as (
    insert into club.personal_bests as kept
    select * from fresh
    on conflict (tenant_id, player_id, category, match_id) do update
       set (value, previous) = (excluded.value, excluded.previous)
     where kept is distinct from excluded
    returning 1
), vanished as (
    delete from club.personal_bests as kept
     where tenant_id = target_tenant_id
       and not exists (select from fresh
                        where (fresh.player_id, fresh.category, fresh.match_id)
                            = (kept.player_id, kept.category, kept.match_id))
    returning 1
)
select ((select count(*) from written) + (select count(*) from vanished))::integer
$$;
comment on function club.update_aggregated_personal_bests(uuid) is
    'Fills personal_bests from the raw matches. Returns the number of changed rows.';
