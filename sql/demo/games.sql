-- For the demo "games": users, and what the demo asks of their games.
--
-- Needs sql/jobs/games. Applied once, to a database of the demo's own; drop schema demo cascade takes it away.

create schema if not exists demo;
comment on schema demo is 'What the demos do to the shipped systems and ask of them; nothing that those or the queue need.';

create or replace function demo.add_user(lichess text, chess_com text) returns uuid
language sql set search_path = pg_catalog, pg_temp
as $$
insert into games.player (user_id, lichess, chess_com) values (gen_random_uuid(), lichess, chess_com) returning user_id
$$;
comment on function demo.add_user(text, text) is 'A user who plays under these names. Returns the id.';

create table if not exists demo.analysis_before (
  game_id bigint primary key,
  made_at timestamptz not null
);
comment on table demo.analysis_before is 'The analyses that were there when the plug was pulled.';

create or replace function demo.remember_analyses() returns bigint
language sql set search_path = pg_catalog, pg_temp
as $$
with kept as (insert into demo.analysis_before select game_id, made_at from games.analysis returning 1)
select count(*) from kept
$$;
comment on function demo.remember_analyses() is 'Writes down which games are analysed by now. Returns how many.';

create or replace function demo.repeated_analyses() returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
select count(*) from demo.analysis_before b left join games.analysis a using (game_id) where a.made_at is distinct from b.made_at
$$;
comment on function demo.repeated_analyses() is 'How many of those are gone, or made anew.';

create or replace function demo.effort(sync_id uuid, deep_nodes bigint, out quick bigint, out deep bigint, out nodes bigint,
  out all_deep bigint)
language sql stable set search_path = pg_catalog, pg_temp
as $$
select count(*) filter (where a.look = 'quick'), count(*) filter (where a.look = 'deep'), coalesce(sum(a.nodes), 0)::bigint,
  coalesce(sum((a.moves + 1) * deep_nodes), 0)::bigint
from games.analysis a where a.sync_id = effort.sync_id
$$;
comment on function demo.effort(uuid, bigint) is
  'What the analyses of a sync cost in nodes, and what they would have, had every game got the deep look.';
