-- For the demo "reconcile": a league whose progress is as it should be, and what may happen to it.
--
-- Needs sql/jobs/reconcile. Applied once, to a database of the demo's own; drop schema demo cascade takes it away.

create schema if not exists demo;
comment on schema demo is 'What the demos do to the shipped systems and ask of them; nothing that those or the queue need.';

create or replace function demo.fill_league(competitions integer, seasons integer, clubs integer) returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
insert into league.competitions (competition_id, competition_url)
select 'C' || to_char(c, 'FM000'), 'https://league.example/' || c from generate_series(1, competitions) as c;

insert into league.teams (competition_id, season_year, club_id, created_at)
select 'C' || to_char(c, 'FM000'), (2000 + s)::text, 'club' || k, make_date(2000 + s, 6, 1)
  from generate_series(1, competitions) as c, generate_series(1, seasons) as s, generate_series(1, clubs) as k;

insert into league.competition_progress (competition_id, competition_url, status, seasons_discovered, completed_at)
select competition_id, competition_url, 'completed', seasons, make_date(2000 + seasons, 6, 1) from league.competitions;

insert into league.season_progress (competition_id, season_year, season_id, status, clubs_saved, completed_at)
select competition_id, (2000 + s)::text, 'season-' || s, 'completed', clubs, make_date(2000 + s, 6, 1)
  from league.competitions, generate_series(1, seasons) as s;

analyze league.teams, league.competition_progress, league.season_progress;
select count(*) from league.teams;
$$;
comment on function demo.fill_league(integer, integer, integer) is
  'So many competitions of so many seasons of so many clubs, with the progress that belongs to them. Returns the teams.';

create or replace function demo.derange_league() returns void
language sql set search_path = pg_catalog, pg_temp
as $$
-- Imported behind the trackers' back; of the second nobody knows the address.
delete from league.competition_progress where competition_id in ('C001', 'C002');
delete from league.season_progress where competition_id in ('C001', 'C002');
delete from league.competitions where competition_id = 'C002';
-- A second address counts no team twice.
insert into league.competitions (competition_id, competition_url) values ('C003', 'https://another.example/3');
-- Written down as failed, although the teams came; written down with a wrong number.
update league.season_progress set status = 'failed', clubs_saved = 0, retry_count = 3, error_message = 'timed out'
 where competition_id = 'C004' and season_year in ('2001', '2002', '2003');
update league.season_progress set clubs_saved = 19 where competition_id = 'C005' and season_year in ('2001', '2002');
-- A worker is at it since five minutes; another began three hours ago and was never heard of again.
update league.competition_progress
   set status = 'in_progress', worker_id = 'host_6', started_at = now() - interval '5 minutes'
 where competition_id = 'C006';
update league.season_progress
   set status = 'in_progress', worker_id = 'host_6', started_at = now() - interval '5 minutes'
 where competition_id = 'C006' and season_year = '2010';
update league.competition_progress
   set status = 'in_progress', worker_id = 'host_7', started_at = now() - interval '3 hours'
 where competition_id = 'C007';
update league.competition_progress set seasons_discovered = 99 where competition_id = 'C008';
-- Completed, and there is nothing to show for it.
insert into league.season_progress (competition_id, season_year, season_id, status, clubs_saved, completed_at)
values ('C009', '1990', 'season-1990', 'completed', 20, now());
$$;
comment on function demo.derange_league() is 'Everything that makes progress and teams disagree, and one thing that does not.';

create or replace function demo.move_on() returns void
language sql set search_path = pg_catalog, pg_temp
as $$
insert into league.teams (competition_id, season_year, club_id)
select 'C009', '1990', 'club' || k from generate_series(1, 18) as k;
update league.competition_progress set started_at = started_at - interval '1 hour' where status = 'in_progress';
update league.season_progress set started_at = started_at - interval '1 hour' where status = 'in_progress';
$$;
comment on function demo.move_on() is 'An hour later: the teams that were missing are collected, and the worker has died.';

create or replace function demo.league_digest() returns text
language sql set search_path = pg_catalog, pg_temp
as $$
select md5(string_agg(line, ';' order by line))
  from (select kept::text || kept.ctid || kept.xmin from league.competition_progress as kept
        union all
        select kept::text || kept.ctid || kept.xmin from league.season_progress as kept) as known (line)
$$;
comment on function demo.league_digest() is 'The same only as long as no row of progress was written.';

create or replace function demo.dawdle() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$ begin perform pg_sleep(3); return null; end $$;
comment on function demo.dawdle() is 'Trigger: the statement is done but for this, and takes its time.';

create or replace function demo.begin_dawdling() returns void
language sql set search_path = pg_catalog, pg_temp
as $$ create trigger dawdle after insert on league.season_progress for each statement execute function demo.dawdle() $$;
comment on function demo.begin_dawdling() is 'Whoever inserts progress of seasons is to be caught in the middle.';

create or replace function demo.end_dawdling() returns void
language sql set search_path = pg_catalog, pg_temp
as $$ drop trigger dawdle on league.season_progress $$;
comment on function demo.end_dawdling() is 'Inserts are quick again.';

create or replace function demo.reconcilers(within boolean) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
select count(*)
  from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid()
   and query like '%league.reconcile_apply%' and (not within or wait_event = 'PgSleep')
$$;
comment on function demo.reconcilers(boolean) is
  'Sessions that reconcile, or that have just done so and are still there; with true, those in the middle of it.';
