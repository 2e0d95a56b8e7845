-- What the job says while it analyses. A game that has its row in games.analysis is done, for every sync; what a killed
-- job had not written down is pending, and nothing else is.

create or replace function games.begin_analysis(sync_id uuid, job_id bigint, claim bigint) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    -- A job that comes again tries the games that failed once more, and only those that are not analysed.
    update games.sync_game g set status = 'pending', note = null
     where g.sync_id = begin_analysis.sync_id and g.status = 'failed';
    update games.sync_game g set status = 'skipped', note = 'analysed before'
     where g.sync_id = begin_analysis.sync_id and g.status = 'pending'
       and exists (select from games.analysis a where a.game_id = g.game_id);
    update games.sync s set ended_at = null, outcome = null, error = null where s.id = begin_analysis.sync_id;
    return games.told(begin_analysis.sync_id, begin_analysis.job_id, begin_analysis.claim, 'analyzing');
end
$$;
comment on function games.begin_analysis(uuid, bigint, bigint) is
  'Skips what is analysed, by whichever sync; what failed in an earlier attempt is pending again.';

create or replace function games.pending(sync_id uuid) returns setof bigint
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
select s.game_id from games.sync_game s where s.sync_id = pending.sync_id and s.status = 'pending' order by s.game_id;
end;
comment on function games.pending(uuid) is 'The games that are still to be analysed.';

create or replace function games.read(ids bigint[]) returns table (id bigint, pgn text, colour text)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
select g.id, g.pgn, g.colour from games.game g where g.id = any (ids) order by g.id;
end;
comment on function games.read(bigint[]) is 'What the analysis needs of these games.';

create or replace function games.record(sync_id uuid, job_id bigint, claim bigint, findings jsonb) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    insert into games.analysis (game_id, sync_id, job_id, look, engine, nodes, moves, swing, average_loss, inaccuracies,
                                mistakes, blunders, curve, made_at)
    select f.game_id, record.sync_id, record.job_id, f.look, f.engine, f.nodes, f.moves, f.swing, f.average_loss,
           f.inaccuracies, f.mistakes, f.blunders, f.curve, worker.now()
      from jsonb_to_recordset(findings) as f (game_id bigint, status text, look text, engine text, nodes bigint,
           moves integer, swing integer, average_loss real, inaccuracies integer, mistakes integer, blunders integer, curve jsonb)
     where f.status = 'done'
     order by f.game_id
        on conflict on constraint analysis_pkey do nothing;
    -- Whose row it is says who analysed it: two syncs that met in one game count it once as done.
    update games.sync_game g
       set status = case when f.status <> 'done' then f.status
                         when a.sync_id is distinct from record.sync_id then 'skipped' else 'done' end,
           note = case when f.status = 'done' and a.sync_id is distinct from record.sync_id then 'analysed before'
                       else left(f.note, 120) end  -- of four bytes each: the column takes 500
      from jsonb_to_recordset(findings) as f (game_id bigint, status text, note text)
      left join games.analysis a on a.game_id = f.game_id
     where g.sync_id = record.sync_id and g.game_id = f.game_id and g.status = 'pending';
    return games.told(record.sync_id, record.job_id, record.claim, 'analyzing');
end
$$;
comment on function games.record(uuid, bigint, bigint, jsonb) is
  'Writes down a batch: an analysis for each game that is done, and what became of each.';

create or replace function games.trouble(sync_id uuid) returns setof text
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
select k.url || ': ' || coalesce(g.note, 'failed')
  from games.sync_game g join games.game k on k.id = g.game_id
 where g.sync_id = trouble.sync_id and g.status = 'failed'
 order by g.game_id;
end;
comment on function games.trouble(uuid) is 'The games that failed, each with why.';

create or replace function games.end_sync(sync_id uuid, job_id bigint, claim bigint, outcome text, error text) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    update games.sync s set ended_at = worker.now(), outcome = end_sync.outcome, error = left(end_sync.error, 500)
     where s.id = end_sync.sync_id;
    return games.told(end_sync.sync_id, end_sync.job_id, end_sync.claim, 'analyzing');
end
$$;
comment on function games.end_sync(uuid, bigint, bigint, text, text) is
  'How it ended, for the time when the job is pruned; while there is a job, that has the say.';
