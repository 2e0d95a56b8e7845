-- What the job says while it fetches. Every write is fenced by the job's claim, in its own transaction: worker.progress
-- locks the job's row, and false means that the job belongs to somebody else now.

create or replace function games.open_sync(sync_id uuid, job_id bigint) returns setof games.sync
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
select * from games.sync s where s.id = open_sync.sync_id and s.job_id = open_sync.job_id;
end;
comment on function games.open_sync(uuid, bigint) is 'What a job is to do, and how far it came before.';

create or replace function games.counts(sync_id uuid, out found integer, out pending integer, out done integer,
    out skipped integer, out failed integer)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
select count(*), count(*) filter (where s.status = 'pending'), count(*) filter (where s.status = 'done'),
       count(*) filter (where s.status = 'skipped'), count(*) filter (where s.status = 'failed')
  from games.sync_game s where s.sync_id = counts.sync_id;
end;
comment on function games.counts(uuid) is 'What a sync found and what became of it, from its rows.';

create or replace function games.told(sync_id uuid, job_id bigint, claim bigint, phase text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    c record;
begin
    select * into c from games.counts(told.sync_id);
    update games.sync s set moved_at = worker.now() where s.id = told.sync_id;
    return worker.progress(told.job_id, told.claim, told.phase, jsonb_build_object('found', c.found, 'done', c.done,
        'skipped', c.skipped, 'failed', c.failed,
        'percent', case when c.found > 0 then 100 * (c.found - c.pending) / c.found else 0 end));
end
$$;
comment on function games.told(uuid, bigint, bigint, text) is
  'Shows how far the sync is, on its job; false = the claim is lost, and the caller undoes what it wrote.';

create or replace function games.store_page(sync_id uuid, job_id bigint, claim bigint, page jsonb, cursor bigint,
    most integer) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    with given as (
        select distinct on (g.url) g.* from jsonb_to_recordset(page) as g (url text, played_at timestamptz, kind text,
               variant text, colour text, result text, opponent text, pgn text)
    ), added as (
        insert into games.game (user_id, platform, url, played_at, kind, variant, colour, result, opponent, pgn, sync_id)
        select s.user_id, s.platform, g.url, g.played_at, g.kind, g.variant, g.colour, g.result, g.opponent, g.pgn, s.id
          from given g, games.sync s
         where s.id = store_page.sync_id
         order by g.played_at, g.url
            on conflict on constraint game_user_id_url_key do nothing
        returning id, played_at
    )
    insert into games.sync_game (sync_id, game_id, status, note)
    select store_page.sync_id, n.id, case when n.known then 'skipped' else 'pending' end,
           case when n.known then 'analysed before' end
      from (select f.id, f.known, row_number() over (partition by f.known order by f.played_at, f.id) as place
              from (select a.id, a.played_at, false as known from added a
                     union all
                    select k.id, k.played_at, exists (select from games.analysis a where a.game_id = k.id)
                      from given g join games.sync s on s.id = store_page.sync_id
                      join games.game k on k.user_id = s.user_id and k.url = g.url) as f
             where not exists (select from games.sync_game o where o.sync_id = store_page.sync_id and o.game_id = f.id)) as n
     where n.known
        or n.place <= most - (select count(*) from games.sync_game o
                               where o.sync_id = store_page.sync_id and o.status = 'pending')
        on conflict on constraint sync_game_pkey do nothing;
    update games.sync s set cursor = greatest(s.cursor, store_page.cursor) where s.id = store_page.sync_id;
    return games.told(store_page.sync_id, store_page.job_id, store_page.claim, 'fetching');
end
$$;
comment on function games.store_page(uuid, bigint, bigint, jsonb, bigint, integer) is
  'Keeps a page of games and the cursor behind it, both or neither: a job that comes again goes on there. Of games that are not analysed, up to so many for the whole sync.';

create or replace function games.end_fetch(sync_id uuid, job_id bigint, claim bigint, capped boolean) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    update games.sync s set fetched_at = worker.now(), capped = end_fetch.capped where s.id = end_fetch.sync_id;
    return games.told(end_fetch.sync_id, end_fetch.job_id, end_fetch.claim, 'analyzing');
end
$$;
comment on function games.end_fetch(uuid, bigint, bigint, boolean) is 'All games are there; what follows is the analysis.';
