-- For the demo and the tests: a made-up club is loaded, its matches are finished, and more are entered.
--
-- Needs sql/jobs/stats. `worker.demo.tables` applies it when it loads a club; it may be applied again at any time.
-- To take it away: drop schema demo cascade.

create schema if not exists demo;
comment on schema demo is 'What the demo does to the club and asks of it; nothing that the statistics or the queue need.';

create or replace function demo.begin_load() returns void
language sql set search_path = pg_catalog, pg_temp
as $$
alter table club.match disable trigger user;
alter table club.player_match disable trigger user;
$$;
comment on function demo.begin_load() is
  'No job for what is loaded from here on: the history is loaded, not played. Undone by demo.end_load() in the same transaction.';

create or replace function demo.advance_numbers() returns void
language sql set search_path = pg_catalog, pg_temp
as $$
select setval(pg_get_serial_sequence('club.player', 'id'), max(id)) from club.player;
select setval(pg_get_serial_sequence('club.season', 'id'), max(id)) from club.season;
select setval(pg_get_serial_sequence('club.match', 'id'), max(id)) from club.match;
$$;
comment on function demo.advance_numbers() is
  'Rows that brought their own numbers were written; whoever inserts next must not meet them.';

create or replace function demo.end_load() returns void
language sql set search_path = pg_catalog, pg_temp
as $$
alter table club.match enable trigger user;
alter table club.player_match enable trigger user;
select demo.advance_numbers();
analyze club.player, club.match, club.player_match;
$$;
comment on function demo.end_load() is
  'Matches ask for statistics again, the next numbers are free, and the planner knows the tables.';

-- The plain UPDATE of an application, with the score added up from the goals that were noted.
create or replace function demo.finish_match(target_tenant_id uuid) returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
update club.match
   set status = 'finished', finished_at = now(), (team_a_score, team_b_score) = (
           select coalesce(sum(goals) filter (where team = 'a'), 0), coalesce(sum(goals) filter (where team = 'b'), 0)
             from club.player_match as entry
            where entry.tenant_id = match.tenant_id and entry.match_id = match.id)
 where tenant_id = target_tenant_id
   and id = (select next.id
               from club.match as next
              where next.tenant_id = target_tenant_id and next.status = 'scheduled'
              order by next.played_on, next.id
              limit 1
                for update skip locked)
returning id
$$;
comment on function demo.finish_match(uuid) is
  'Finishes the next scheduled match of a club and answers with its number, or with null when none is left.';

-- Copies of the first matches, so that no line-ups have to be drawn. One statement for all, as an import would do it.
create or replace function demo.add_matches(target_tenant_id uuid, number integer, finished boolean) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    top bigint := (select max(id) from club.match where tenant_id = target_tenant_id);
begin
    insert into club.match (tenant_id, id, season_id, played_on, status, team_a_score, team_b_score, finished_at)
    select tenant_id, top + id, season_id, played_on, case when finished then 'finished' else 'scheduled' end,
           case when finished then team_a_score end, case when finished then team_b_score end,
           case when finished then now() end
      from club.match
     where tenant_id = target_tenant_id and id <= number;

    insert into club.player_match (tenant_id, match_id, player_id, team, goals)
    select tenant_id, top + match_id, player_id, team, goals
      from club.player_match
     where tenant_id = target_tenant_id and match_id <= number;

    perform demo.advance_numbers();
end
$$;
comment on function demo.add_matches(uuid, integer, boolean) is
  'Enters so many matches with their line-ups, finished or still to be played; at most as many as the club was drawn with.';
