-- Who may do what. Only the worker writes; a user sees rows of their own; operators end what is stuck.

revoke all on all functions in schema games from public;
grant usage on schema games to worker_enqueue, worker_tenant, worker_operate, worker_read, worker_run;

grant execute on function games.start(uuid, text, integer, timestamptz, timestamptz, jsonb)
   to worker_enqueue, worker_tenant;
grant execute on function games.may(uuid), games.syncs(uuid, uuid, integer), games.status(uuid), games.recent(uuid, integer)
   to worker_enqueue, worker_tenant, worker_operate, worker_read;
grant execute on function games.stuck(interval), games.cleanup_stuck(interval), games.fix(uuid, text) to worker_operate;
grant execute on function games.check(), games.stuck(interval) to worker_run;
grant execute on function games.open_sync(uuid, bigint), games.counts(uuid), games.told(uuid, bigint, bigint, text),
    games.store_page(uuid, bigint, bigint, jsonb, bigint, integer), games.end_fetch(uuid, bigint, bigint, boolean),
    games.begin_analysis(uuid, bigint, bigint), games.pending(uuid), games.read(bigint[]),
    games.record(uuid, bigint, bigint, jsonb), games.trouble(uuid), games.end_sync(uuid, bigint, bigint, text, text)
   to worker_run;

grant select on games.sync, games.game, games.sync_game, games.analysis, games.sync_jobs
   to worker_enqueue, worker_tenant, worker_operate, worker_read;
grant select, insert, update on games.game, games.sync_game, games.analysis to worker_run;
grant select, update on games.sync to worker_run;
grant select on games.player to worker_run, worker_read, worker_enqueue;
grant insert, update, delete on games.player to worker_enqueue;

alter table games.player enable row level security;
alter table games.sync enable row level security;
alter table games.game enable row level security;
alter table games.sync_game enable row level security;
alter table games.analysis enable row level security;

drop policy if exists by_worker on games.player;
create policy by_worker on games.player for select to worker_run using (true);
drop policy if exists by_worker on games.sync;
create policy by_worker on games.sync to worker_run using (true) with check (true);
drop policy if exists by_worker on games.game;
create policy by_worker on games.game to worker_run using (true) with check (true);
drop policy if exists by_worker on games.sync_game;
create policy by_worker on games.sync_game to worker_run using (true) with check (true);
drop policy if exists by_worker on games.analysis;
create policy by_worker on games.analysis to worker_run using (true) with check (true);

drop policy if exists own on games.player;
create policy own on games.player to worker_enqueue, worker_read using (games.may(user_id)) with check (games.may(user_id));
drop policy if exists own on games.sync;
create policy own on games.sync for select to worker_enqueue, worker_tenant, worker_operate, worker_read
    using (games.may(user_id));
drop policy if exists own on games.game;
create policy own on games.game for select to worker_enqueue, worker_tenant, worker_operate, worker_read
    using (games.may(user_id));
drop policy if exists own on games.sync_game;
create policy own on games.sync_game for select to worker_enqueue, worker_tenant, worker_operate, worker_read
    using (exists (select from games.sync s where s.id = sync_id and games.may(s.user_id)));
drop policy if exists own on games.analysis;
create policy own on games.analysis for select to worker_enqueue, worker_tenant, worker_operate, worker_read
    using (exists (select from games.sync s where s.id = analysis.sync_id and games.may(s.user_id)));
