-- What the functions fill. An aggregate is a cache: rebuilt, never protected. So it refers to its club only (which takes
-- its rows along when it goes) and not to players and matches, whose deletion must not wait for the next refresh.
-- The primary keys begin with tenant_id; the comments say which function writes the table.

create table if not exists club.season_stats (
    tenant_id uuid not null references club.tenant on delete cascade,
    season_id bigint not null, half smallint not null, player_id bigint not null,
    games integer not null, wins integer not null, draws integer not null, losses integer not null,
    heavy_wins integer not null, heavy_losses integer not null, clean_sheets integer not null,
    goals integer not null, goal_difference integer not null,
    points numeric not null, points_per_game numeric not null, win_rate numeric not null, rank integer,
    primary key (tenant_id, season_id, half, player_id)
);
comment on table  club.season_stats      is 'A player in a season: half 0 is the full season, 1 and 2 its halves (update_half_and_full_season_stats).';
comment on column club.season_stats.rank is 'By points among those with season_minimum_games; null below that.';

create table if not exists club.all_time_stats (
    tenant_id uuid not null references club.tenant on delete cascade,
    player_id bigint not null,
    games integer not null, wins integer not null, draws integer not null, losses integer not null,
    heavy_wins integer not null, heavy_losses integer not null, clean_sheets integer not null,
    goals integer not null, goal_difference integer not null,
    points numeric not null, points_per_game numeric not null, win_rate numeric not null,
    first_match_on date not null, last_match_on date not null,
    primary key (tenant_id, player_id)
);
comment on table club.all_time_stats is 'A player over all seasons, retired players too (update_aggregated_all_time_stats).';

create table if not exists club.hall_of_fame (
    tenant_id uuid not null references club.tenant on delete cascade,
    category text not null, place integer not null,
    player_id bigint not null, value numeric not null,
    primary key (tenant_id, category, place)
);
comment on table club.hall_of_fame is 'The best of all time by category: games, goals, wins, clean_sheets, points, points_per_game, win_rate (update_aggregated_hall_of_fame).';

create table if not exists club.recent_performance (
    tenant_id uuid not null references club.tenant on delete cascade,
    player_id bigint not null,
    games integer not null, wins integer not null, draws integer not null, losses integer not null,
    goals integer not null, points numeric not null,
    form text not null, last_match_id bigint not null, last_match_on date not null,
    primary key (tenant_id, player_id)
);
comment on table  club.recent_performance      is 'A player''s last recent_matches own matches (update_aggregated_recent_performance).';
comment on column club.recent_performance.form is 'W, D and L, the oldest first.';

create table if not exists club.personal_bests (
    tenant_id uuid not null references club.tenant on delete cascade,
    player_id bigint not null, category text not null, match_id bigint not null,
    value integer not null, previous integer,
    primary key (tenant_id, player_id, category, match_id)
);
comment on table  club.personal_bests          is 'Every match in which a player surpassed all of the player''s earlier matches; the highest value is the standing best (update_aggregated_personal_bests).';
comment on column club.personal_bests.previous is 'What it surpassed; null for the first mark.';
create index if not exists personal_bests_match on club.personal_bests (tenant_id, match_id);

create table if not exists club.match_report (
    tenant_id uuid not null references club.tenant on delete cascade,
    match_id bigint not null,
    season_id bigint not null, played_on date not null, winner text, margin integer not null, goals integer not null,
    player_of_the_match bigint, top_scorer bigint, top_scorer_goals integer not null,
    personal_bests jsonb not null, records jsonb not null,
    primary key (tenant_id, match_id)
);
comment on table  club.match_report                is 'What there is to say about a match, one row for each finished match (update_aggregated_match_report_cache).';
comment on column club.match_report.winner         is 'a, b, or null for a draw.';
comment on column club.match_report.personal_bests is '[{player_id, category, value, previous}]: what players surpassed here, first marks left out.';
comment on column club.match_report.records        is '[{record, player_id, value, previous, outcome: broken|equaled}], against the matches before this one.';

create table if not exists club.season_honours (
    tenant_id uuid not null references club.tenant on delete cascade,
    season_id bigint not null, honour text not null, place integer not null,
    player_id bigint not null, value numeric not null, decided boolean not null,
    primary key (tenant_id, season_id, honour, place)
);
comment on table  club.season_honours         is 'champion, top_scorer and player_of_the_match of each season (update_aggregated_season_honours_and_records).';
comment on column club.season_honours.decided is 'No match of the season is still to be played.';

create table if not exists club.records (
    tenant_id uuid not null references club.tenant on delete cascade,
    record text not null,
    value integer not null, match_id bigint not null, player_id bigint,
    primary key (tenant_id, record)
);
comment on table club.records is 'The standing records and the match that first reached them (update_aggregated_season_honours_and_records).';

create table if not exists club.player_profile_stats (
    tenant_id uuid not null references club.tenant on delete cascade,
    player_id bigint not null,
    games integer not null, seasons integer not null, goals integer not null, goals_per_game numeric not null,
    hat_tricks integer not null, first_match_on date not null, last_match_on date not null,
    current_win integer not null, current_unbeaten integer not null, current_losing integer not null,
    current_scoring integer not null, current_attendance integer not null,
    longest_win integer not null, longest_unbeaten integer not null, longest_losing integer not null,
    longest_scoring integer not null, longest_attendance integer not null,
    favourite_teammate bigint, games_together integer not null,
    primary key (tenant_id, player_id)
);
comment on table  club.player_profile_stats                    is 'What a player''s own page shows, runs included (update_aggregated_player_profile_stats).';
comment on column club.player_profile_stats.current_attendance is '0 when the player missed the club''s latest match.';
comment on column club.player_profile_stats.favourite_teammate is 'Most games in the same team; the lower id when equal.';

create table if not exists club.season_race_data (
    tenant_id uuid not null references club.tenant on delete cascade,
    season_id bigint not null, match_number integer not null, player_id bigint not null,
    match_id bigint not null, points numeric not null, position integer not null,
    primary key (tenant_id, season_id, match_number, player_id)
);
comment on table club.season_race_data is 'The current season, match by match: the points so far of the race_size leading players (update_aggregated_season_race_data).';

create table if not exists club.player_power_rating (
    tenant_id uuid not null references club.tenant on delete cascade,
    player_id bigint not null,
    games integer not null, rating numeric not null, goal_threat numeric not null, participation numeric not null,
    earlier_rating numeric, trend numeric not null, rank integer not null,
    primary key (tenant_id, player_id)
);
comment on table  club.player_power_rating                is 'Points a match, recent matches weighing more (update_power_ratings).';
comment on column club.player_power_rating.goal_threat    is 'Goals a match, weighed in the same way.';
comment on column club.player_power_rating.participation  is 'Percentage of the club''s matches played, weighed in the same way.';
comment on column club.player_power_rating.earlier_rating is 'The rating as it was power_trend_days before the latest match; null for who had not played by then.';
comment on column club.player_power_rating.trend          is 'rating - earlier_rating; 0 without one.';
