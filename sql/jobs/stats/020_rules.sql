-- The rules as numbers: every setting has a default, and a club may say otherwise in club.config.

create table if not exists club.setting (
    key           text    primary key,
    default_value numeric not null,
    meaning       text    not null
);
comment on table club.setting is 'The settings that exist, with their defaults. Shipped; a club changes club.config.';

insert into club.setting as kept (key, default_value, meaning) values
    ('points_win',                 20, 'fantasy points of a player whose team won'),
    ('points_draw',                10, 'fantasy points of a player whose team drew'),
    ('points_loss',               -10, 'fantasy points of a player whose team lost'),
    ('points_goal',                 2, 'fantasy points for each goal of the player'),
    ('points_clean_sheet',         10, 'fantasy points added when the player''s team conceded nothing'),
    ('points_heavy_win',           10, 'fantasy points added to a heavy win'),
    ('points_heavy_loss',         -10, 'fantasy points added to a heavy loss'),
    ('heavy_margin',                4, 'goals of difference from which a win or a loss is heavy'),
    ('hat_trick_goals',             3, 'goals in one match that make a hat-trick'),
    ('season_minimum_games',        5, 'games in a season, or half, before a player is ranked or champion'),
    ('honours_size',                3, 'places given for each honour of a season'),
    ('hall_of_fame_minimum_games', 20, 'games before a player may enter the hall of fame'),
    ('hall_of_fame_size',          10, 'places in each category of the hall of fame'),
    ('recent_matches',              5, 'own matches that make a player''s recent form'),
    ('race_size',                  10, 'players followed through the current season'),
    ('power_half_life_days',       90, 'days after which a match weighs half in the power rating'),
    ('power_minimum_games',         5, 'games before a player is rated'),
    ('power_trend_days',           30, 'days that the trend of the power rating looks back')
on conflict (key) do update
   set default_value = excluded.default_value, meaning = excluded.meaning
 where (kept.default_value, kept.meaning) is distinct from (excluded.default_value, excluded.meaning);

create table if not exists club.config (
    tenant_id uuid    not null references club.tenant on delete cascade,
    key       text    not null references club.setting,
    value     numeric not null check (value not in ('NaN', 'Infinity', '-Infinity')),
    primary key (tenant_id, key),
    -- points may be anything; thresholds, sizes and days are counted and begin at one
    check (starts_with(key, 'points_') or (value >= 1 and value = trunc(value)))
);
comment on table club.config is 'What a club has set for itself; everything else has its default from club.setting.';

-- One row for each club. Turned from rows to columns, so that a misspelt key is an error and not a null.
create or replace view club.rules with (security_invoker = true) as
select chosen.tenant_id,
       max(value) filter (where key = 'points_win')                      as points_win,
       max(value) filter (where key = 'points_draw')                     as points_draw,
       max(value) filter (where key = 'points_loss')                     as points_loss,
       max(value) filter (where key = 'points_goal')                     as points_goal,
       max(value) filter (where key = 'points_clean_sheet')              as points_clean_sheet,
       max(value) filter (where key = 'points_heavy_win')                as points_heavy_win,
       max(value) filter (where key = 'points_heavy_loss')               as points_heavy_loss,
       max(value) filter (where key = 'heavy_margin')                    as heavy_margin,
       max(value) filter (where key = 'hat_trick_goals')                 as hat_trick_goals,
       max(value) filter (where key = 'season_minimum_games')            as season_minimum_games,
       max(value) filter (where key = 'honours_size')                    as honours_size,
       max(value) filter (where key = 'hall_of_fame_minimum_games')      as hall_of_fame_minimum_games,
       max(value) filter (where key = 'hall_of_fame_size')               as hall_of_fame_size,
       max(value) filter (where key = 'recent_matches')                  as recent_matches,
       max(value) filter (where key = 'race_size')                       as race_size,
       max(value) filter (where key = 'power_half_life_days')::double precision as power_half_life_days,
       max(value) filter (where key = 'power_minimum_games')             as power_minimum_games,
       max(value) filter (where key = 'power_trend_days')::integer       as power_trend_days
  from (select tenant.id as tenant_id, setting.key, coalesce(config.value, setting.default_value) as value
          from club.tenant
         cross join club.setting
          left join club.config on config.tenant_id = tenant.id and config.key = setting.key) as chosen
 group by chosen.tenant_id;
comment on view club.rules is 'The settings in force, one row for each club.';
