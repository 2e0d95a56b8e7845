-- A finished match asks for new statistics in its own transaction: no match without a job, no job without a match.
-- Needs schema worker. A bulk load goes before this file, or leaves one job for each statement and club.
--
-- Statement-level, with transition tables: a statement that finishes a thousand matches enqueues once for each club.
-- What counts is the finished matches before and after. So a scheduled match that moves to another day enqueues nothing,
-- and a finished one that is corrected, taken back or deleted does, and so does a correction of its line-up.
-- Clubs are enqueued in the order of their ids: two such transactions that meet wait for each other and do not deadlock.
--
-- SECURITY DEFINER: who may enter a match need not be allowed to write to the queue, only the owner of these functions
-- (a member of worker_enqueue).

create or replace function club.enqueue_stats(changed club.match[]) returns void
language sql set search_path = pg_catalog, pg_temp
as $$
select worker.enqueue(
           job_type => 'stats_update',
           payload  => jsonb_build_object('tenant_id', newest.tenant_id, 'match_id', newest.id,
                                          'triggeredBy', 'post-match'),
           priority => 50,
           source   => 'match')
  from (select distinct on (tenant_id) tenant_id, id
          from unnest(changed)
         order by tenant_id, played_on desc, id desc) as newest
 order by newest.tenant_id
$$;
comment on function club.enqueue_stats(club.match[]) is 'One stats_update for each club of these matches, naming its latest.';

create or replace function club.match_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    before club.match[] := '{}';
    after  club.match[] := '{}';
begin
    if tg_op <> 'INSERT' then
        before := array(select stale::club.match from stale where stale.status = 'finished');
    end if;
    if tg_op <> 'DELETE' then
        after := array(select fresh::club.match from fresh where fresh.status = 'finished');
    end if;
    perform club.enqueue_stats(array(
        (select unnest(before) except select unnest(after)) union all (select unnest(after) except select unnest(before))));
    return null;
end
$$;
comment on function club.match_changed() is 'Trigger: finished matches came, went or changed.';

create or replace function club.lineup_changed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    before club.player_match[] := '{}';
    after  club.player_match[] := '{}';
begin
    if tg_op <> 'INSERT' then
        before := array(select stale::club.player_match from stale);
    end if;
    if tg_op <> 'DELETE' then
        after := array(select fresh::club.player_match from fresh);
    end if;
    perform club.enqueue_stats(array(
        select match
          from club.match
         where match.status = 'finished'
           and (match.tenant_id, match.id) in (
                   select entry.tenant_id, entry.match_id
                     from ((select * from unnest(before) except select * from unnest(after))
                           union all
                           (select * from unnest(after) except select * from unnest(before))) as entry)));
    return null;
end
$$;
comment on function club.lineup_changed() is 'Trigger: the line-up of a finished match was corrected.';

create or replace trigger match_inserted after insert on club.match
    referencing new table as fresh for each statement execute function club.match_changed();
create or replace trigger match_updated after update on club.match
    referencing old table as stale new table as fresh for each statement execute function club.match_changed();
create or replace trigger match_deleted after delete on club.match
    referencing old table as stale for each statement execute function club.match_changed();

create or replace trigger lineup_inserted after insert on club.player_match
    referencing new table as fresh for each statement execute function club.lineup_changed();
create or replace trigger lineup_updated after update on club.player_match
    referencing old table as stale new table as fresh for each statement execute function club.lineup_changed();
create or replace trigger lineup_deleted after delete on club.player_match
    referencing old table as stale for each statement execute function club.lineup_changed();
