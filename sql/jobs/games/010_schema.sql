-- The tables of game sync: players with their names on two platforms, syncs, the games these found, and their analyses.
-- The functions follow in 110 to 160, the rights in 190.
--
-- A sync is one row here and one job in the queue, made in one transaction. The job says how it is going; the row says
-- what was asked for, how far the fetching came, and, once the job is pruned, how it ended.
--
-- The files of this folder are applied in the order of their names, each by `psql -1 -f`, as often as one likes.

create schema if not exists games;
comment on schema games is 'Games of chess, synced from Lichess and Chess.com, and analysed: the job type sync_games.';

create table if not exists games.player (
    user_id    uuid primary key,
    lichess    text check (lichess ~ '^[A-Za-z0-9_-]{2,30}$'),
    chess_com  text check (chess_com ~ '^[A-Za-z0-9_-]{3,25}$'),
    created_at timestamptz not null default now()
);
comment on table  games.player           is 'A user of the application and the names they play under.';
comment on column games.player.lichess   is 'Null: not set in the profile, so nothing is synced from there.';
comment on column games.player.chess_com is 'Null: not set in the profile, so nothing is synced from there.';

create table if not exists games.sync (
    id         uuid primary key default gen_random_uuid(),
    user_id    uuid not null references games.player on delete cascade,
    platform   text not null check (platform in ('lichess', 'chess.com')),
    username   text not null,
    months     integer not null check (months between 1 and 120),
    from_at    timestamptz not null,
    to_at      timestamptz not null check (to_at > from_at),
    filters    jsonb not null default '{}' check (jsonb_typeof(filters) = 'object'),
    job_id     bigint not null unique,
    cursor     bigint not null default 0,
    fetched_at timestamptz,
    capped     boolean not null default false,
    moved_at   timestamptz not null,
    created_at timestamptz not null,
    ended_at   timestamptz,
    outcome    text check (outcome in ('completed', 'failed')),
    error      text check (octet_length(error) <= 2000)
);
comment on table  games.sync            is 'A sync that a user started. Its job is job_id, which is pruned one day; this row stays.';
comment on column games.sync.cursor     is 'How far the fetching came: for lichess milliseconds of the epoch, for chess.com a month as 202601.';
comment on column games.sync.fetched_at is 'When all games were there; from then on nothing is fetched any more.';
comment on column games.sync.capped     is 'It took as many games as one sync analyses; newer ones, if there are any, are the next one''s.';
comment on column games.sync.moved_at   is 'Its last sign of progress, by which a stuck sync is told from a long one.';
create index if not exists sync_by_user on games.sync (user_id, created_at desc, id);

create table if not exists games.game (
    id        bigint generated always as identity primary key,
    user_id   uuid not null references games.player on delete cascade,
    platform  text not null,
    url       text not null check (octet_length(url) <= 500),
    played_at timestamptz not null,
    kind      text not null check (kind in ('bullet', 'blitz', 'rapid', 'classical', 'daily', 'other')),
    variant   text not null check (octet_length(variant) <= 100),
    colour    text not null check (colour in ('white', 'black')),
    result    text not null check (result in ('win', 'loss', 'draw')),
    opponent  text check (octet_length(opponent) <= 200),
    pgn       text not null check (octet_length(pgn) <= 262144),
    sync_id   uuid not null references games.sync on delete cascade,
    unique (user_id, url)
);
comment on table  games.game         is 'A game of a user, once, whichever syncs find it.';
comment on column games.game.kind    is 'By the clock, in the same words for both platforms.';
comment on column games.game.result  is 'The user''s.';
comment on column games.game.sync_id is 'The sync that brought it.';

create table if not exists games.sync_game (
    sync_id uuid   not null references games.sync on delete cascade,
    game_id bigint not null references games.game on delete cascade,
    status  text   not null default 'pending' check (status in ('pending', 'done', 'skipped', 'failed')),
    note    text check (octet_length(note) <= 500),
    primary key (sync_id, game_id)
);
comment on table  games.sync_game        is 'What a sync found, and what became of each game: found = pending + done + skipped + failed.';
comment on column games.sync_game.status is 'done: analysed by this sync; skipped: analysed before, or nothing to analyse; failed: see note.';
create index if not exists sync_game_by_game on games.sync_game (game_id);

create table if not exists games.analysis (
    game_id      bigint primary key references games.game on delete cascade,
    sync_id      uuid   not null references games.sync on delete cascade,
    job_id       bigint not null,
    look         text   not null check (look in ('quick', 'deep')),
    engine       text   not null check (octet_length(engine) <= 100),
    nodes        bigint not null check (nodes >= 0),
    moves        integer not null check (moves > 0),
    swing        integer not null check (swing >= 0),
    average_loss real,
    inaccuracies integer,
    mistakes     integer,
    blunders     integer,
    curve        jsonb  not null check (jsonb_typeof(curve) = 'array'),
    made_at      timestamptz not null
);
comment on table  games.analysis              is 'What the engine made of a game. One a game, for good.';
comment on column games.analysis.job_id       is 'The job that made it, which is that of sync_id.';
comment on column games.analysis.look         is 'quick: some positions, a few nodes each; deep: every position, many nodes.';
comment on column games.analysis.nodes        is 'Nodes searched for it, both looks together.';
comment on column games.analysis.moves        is 'Moves of both sides together.';
comment on column games.analysis.swing        is 'The largest turn against the user that the quick look saw, in hundredths of a pawn.';
comment on column games.analysis.average_loss is 'What a move of the user gave away on average, in hundredths of a pawn; deep looks only, as what follows.';
comment on column games.analysis.curve        is 'Pairs [half-move, hundredths of a pawn from White''s side], a mate as 1000.';
create index if not exists analysis_by_sync on games.analysis (sync_id);
