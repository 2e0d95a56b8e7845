"""The ten stats functions against an independent computation, and what they promise beside their figures."""

import datetime
import uuid

import asyncpg
import pytest

from tests.jobs.independent_stats import Replay
from tests.jobs.stats_database import FUNCTIONS, KEYS, configure, install, refresh, run, table, tables, versions
from worker.demo.club import Club, Match, PlayerMatch, generate
from worker.demo.tables import finish_match, load

OTHER_RULES = {
    "heavy_margin": 2,
    "points_win": 6,
    "points_loss": -8,
    "points_goal": 7,
    "points_draw": 5,
    "points_clean_sheet": 3,
    "hat_trick_goals": 2,
    "season_minimum_games": 25,
    "honours_size": 5,
    "hall_of_fame_minimum_games": 60,
    "recent_matches": 9,
    "race_size": 3,
    "power_half_life_days": 17,
    "power_trend_days": 200,
}
CASES = [(1, {}), (20_002, {}), (333, OTHER_RULES)]


def small(seed: int, tenants: int = 1) -> Club:
    return generate(seed, players=40, matches=150, tenants=tenants, seasons=3)


@pytest.fixture
async def database(connection: asyncpg.Connection) -> asyncpg.Connection:
    await install(connection)
    return connection


def expected(replay: Replay) -> dict:
    return {name: getattr(replay, name)() for name in KEYS}


@pytest.mark.parametrize(("seed", "settings"), CASES, ids=["seed 1", "seed 20002", "seed 333, other rules"])
@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_function_agrees_with_the_independent_computation(database, function, seed, settings):
    club = small(seed)
    tenant_id = club.tenants[0].id
    await load(database, club)
    await configure(database, tenant_id, settings)
    for needed in ("update_aggregated_all_time_stats", "update_aggregated_personal_bests"):
        await run(database, needed, tenant_id)
    if function == "update_aggregated_season_honours_and_records":
        await run(database, "update_aggregated_match_report_cache", tenant_id)
    await run(database, function, tenant_id)
    replay = Replay(club, tenant_id, settings)
    for name in FUNCTIONS[function]:
        found = await table(database, name, tenant_id)
        assert found, f"{name} is empty: this club tests nothing"
        assert found == getattr(replay, name)()


async def test_the_cases_meet_what_the_rules_distinguish():
    """A seed in which nothing is heavy, equaled or tied would prove less than it seems to."""
    club = small(1)
    replay = Replay(club, club.tenants[0].id)
    assert sum(len(line_up) for line_up in replay.line_ups.values()) < len(club.player_matches)  # ringers played
    news = [item for report in replay.match_report().values() for item in report["records"]]
    assert {item["outcome"] for item in news} == {"broken", "equaled"}
    assert replay.retired
    assert len({game.half for career in replay.games.values() for game in career}) == 2
    totals = replay.all_time_stats().values()
    assert all(any(row[name] for row in totals) for name in ("heavy_wins", "heavy_losses", "clean_sheets", "draws"))
    assert any(row["rank"] is None for row in replay.season_stats().values())
    assert any(row["earlier_rating"] is not None for row in replay.player_power_rating().values())
    assert any(row["favourite_teammate"] for row in replay.player_profile_stats().values())


async def test_each_finished_match_leads_to_what_the_replay_says(database):
    """Incremental runs end where one run over everything would."""
    club = small(5)
    tenant_id = club.tenants[0].id
    await load(database, club)
    await refresh(database, tenant_id)
    for _ in range(2):
        await finish_match(database, tenant_id)
        await refresh(database, tenant_id)
    club.matches[:] = [Match(*row) for row in await database.fetch("select * from club.match")]
    assert sum(match.status == "finished" for match in club.matches) == 152
    assert await tables(database, tenant_id) == expected(Replay(club, tenant_id))


async def test_a_second_run_writes_nothing(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    first = await refresh(database, tenant_id)
    before = await versions(database, tenant_id)
    second = await refresh(database, tenant_id)
    assert all(changed > 0 for changed in first.values())
    assert second == dict.fromkeys(FUNCTIONS, 0)
    assert await versions(database, tenant_id) == before


async def test_unchanged_rows_stay_unwritten_when_others_change(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    await refresh(database, tenant_id)
    before = await versions(database, tenant_id)
    await finish_match(database, tenant_id)
    changed = await refresh(database, tenant_id)
    after = await versions(database, tenant_id)
    assert changed["update_aggregated_match_report_cache"] == 1
    assert set(after["match_report"]) > set(before["match_report"])
    assert set(after["all_time_stats"]) & set(before["all_time_stats"])  # who did not play keeps the old row


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_only_the_rows_of_the_target_tenant_are_touched(database, function):
    club = small(7, tenants=2)  # two clubs with the same player, match and season numbers on the same days
    ours, theirs = (tenant.id for tenant in club.tenants)
    await load(database, club)
    await refresh(database, ours)
    await refresh(database, theirs)
    before = await versions(database, theirs)
    await finish_match(database, ours)
    await finish_match(database, theirs)  # their rows are now out of date, and must stay so
    await run(database, function, ours)
    assert await versions(database, theirs) == before


async def test_two_tenants_with_the_same_numbers_and_days_each_get_their_own(database):
    club = small(7, tenants=2)
    ours, theirs = (tenant.id for tenant in club.tenants)
    await load(database, club)
    await configure(database, theirs, OTHER_RULES)
    await refresh(database, ours)
    await refresh(database, theirs)
    assert await tables(database, ours) == expected(Replay(club, ours))
    assert await tables(database, theirs) == expected(Replay(club, theirs, OTHER_RULES))


async def test_a_tenant_without_matches_and_one_that_does_not_exist_get_nothing(database):
    empty = await database.fetchval("insert into club.tenant (name) values ('Empty') returning id")
    for tenant_id in (empty, uuid.UUID(int=0)):
        assert await refresh(database, tenant_id) == dict.fromkeys(FUNCTIONS, 0)
        assert not any((await tables(database, tenant_id)).values())


async def test_deleted_matches_make_rows_vanish(database):
    club = small(3)
    tenant_id = club.tenants[0].id
    await load(database, club)
    await refresh(database, tenant_id)
    gone = {match.id for match in club.matches if match.season_id == 3 or match.id % 7 == 0}
    await database.execute("delete from club.match where id = any($1)", list(gone))
    await refresh(database, tenant_id)
    club.matches[:] = [match for match in club.matches if match.id not in gone]
    club.player_matches[:] = [entry for entry in club.player_matches if entry.match_id not in gone]
    assert await tables(database, tenant_id) == expected(Replay(club, tenant_id))
    await database.execute("delete from club.match")
    await refresh(database, tenant_id)
    assert not any((await tables(database, tenant_id)).values())


async def test_several_matches_on_one_day_are_in_the_order_of_their_ids(database):
    club = small(11)
    tenant_id = club.tenants[0].id
    by_season = {season.id: season.starts_on for season in club.seasons}
    club.matches[:] = [  # ten matches a day, and the rows in no useful order
        match._replace(played_on=by_season[match.season_id] + datetime.timedelta(days=match.id // 10 * 10))
        for match in reversed(club.matches)
    ]
    await load(database, club)
    await refresh(database, tenant_id)
    assert await tables(database, tenant_id) == expected(Replay(club, tenant_id))


async def test_a_player_turned_ringer_or_retired_leaves_the_tables(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    await refresh(database, tenant_id)
    leaders = [key[0] for key, row in Replay(club, tenant_id).player_power_rating().items() if row["rank"] <= 2]
    await database.execute("update club.player set ringer = true where id = $1", leaders[0])
    await database.execute("update club.player set retired = true where id = $1", leaders[1])
    club.players[:] = [
        player._replace(
            ringer=player.ringer or player.id == leaders[0], retired=player.retired or player.id == leaders[1]
        )
        for player in club.players
    ]
    await refresh(database, tenant_id)
    assert await tables(database, tenant_id) == expected(Replay(club, tenant_id))


async def test_a_match_with_nobody_or_only_ringers_has_a_report(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    ringer = next(player.id for player in club.players if player.ringer)
    day = datetime.date(2018, 12, 30)
    club.matches.append(Match(tenant_id, 901, 3, day, "finished", 0, 0, None))
    club.matches.append(Match(tenant_id, 902, 3, day, "finished", 30, 0, None))
    club.player_matches.append(PlayerMatch(tenant_id, 902, ringer, "a", 30))
    await load(database, club)
    await refresh(database, tenant_id)
    reports = await table(database, "match_report", tenant_id)
    assert reports[901,]["player_of_the_match"] is None
    assert reports[902,]["top_scorer"] is None
    assert [item["record"] for item in reports[902,]["records"]] == ["biggest_win", "most_goals"]
    assert await tables(database, tenant_id) == expected(Replay(club, tenant_id))


# --- why the graph has needs ----------------------------------------------------------------------------------------


async def test_the_report_says_the_same_after_the_records_were_updated(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    await database.execute("update club.match set team_a_score = 40 where id = 150")  # the latest match breaks records
    await refresh(database, tenant_id)
    report = (await table(database, "match_report", tenant_id))[150,]
    assert ("biggest_win", "broken") in [(item["record"], item["outcome"]) for item in report["records"]]
    assert (await table(database, "records", tenant_id))["biggest_win",]["match_id"] == 150
    assert await run(database, "update_aggregated_match_report_cache", tenant_id) == 0
    assert (await table(database, "match_report", tenant_id))[150,] == report


@pytest.mark.parametrize(
    ("early", "needed"),
    [
        ("update_aggregated_hall_of_fame", ["update_aggregated_all_time_stats"]),
        ("update_aggregated_match_report_cache", ["update_aggregated_personal_bests"]),
        (
            "update_aggregated_season_honours_and_records",
            ["update_aggregated_personal_bests", "update_aggregated_match_report_cache"],
        ),
    ],
)
async def test_run_before_what_it_needs_a_function_is_stale(database, early, needed):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    latest = max(club.matches[:150], key=lambda match: (match.played_on, match.id)).id
    await database.execute("update club.match set status = 'scheduled' where id = $1", latest)
    await refresh(database, tenant_id)
    # now the club's best match ever: everybody scores more than anybody ever did
    await database.execute("update club.player_match set goals = 20 where match_id = $1", latest)
    await database.execute("update club.match set status = 'finished', team_a_score = 160 where id = $1", latest)
    await run(database, early, tenant_id)
    stale = [await table(database, name, tenant_id) for name in FUNCTIONS[early]]
    for function in needed:
        await run(database, function, tenant_id)
    assert await run(database, early, tenant_id) > 0
    assert [await table(database, name, tenant_id) for name in FUNCTIONS[early]] != stale


async def test_functions_without_needs_may_run_in_any_order(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    needy = {
        "update_aggregated_hall_of_fame",
        "update_aggregated_match_report_cache",
        "update_aggregated_season_honours_and_records",
    }
    for function in reversed([name for name in FUNCTIONS if name not in needy]):
        await run(database, function, tenant_id)
    for function in (name for name in FUNCTIONS if name in needy):
        await run(database, function, tenant_id)
    assert await tables(database, tenant_id) == expected(Replay(club, tenant_id))


# --- what a database administrator asks -----------------------------------------------------------------------------


async def test_the_files_can_be_applied_again(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    await configure(database, tenant_id, {"heavy_margin": 3})
    await refresh(database, tenant_id)
    before = await versions(database, tenant_id)
    await install(database)
    assert await refresh(database, tenant_id) == dict.fromkeys(FUNCTIONS, 0)
    assert await versions(database, tenant_id) == before


async def test_everything_is_commented_and_nothing_is_a_definer_but_the_triggers(database):
    await install(database, trigger=True)
    bare = await database.fetch("""
        select 'function' as kind, proname::text as name from pg_proc
         where pronamespace = 'club'::regnamespace and obj_description(oid, 'pg_proc') is null
        union all
        select 'table', relname from pg_class
         where relnamespace = 'club'::regnamespace and relkind in ('r', 'v')
           and obj_description(oid, 'pg_class') is null
    """)
    assert bare == []
    definers = await database.fetch("""
        select proname, proconfig from pg_proc where pronamespace = 'club'::regnamespace and prosecdef order by proname
    """)
    assert [row["proname"] for row in definers] == ["lineup_changed", "match_changed"]
    assert all(row["proconfig"] == ["search_path=pg_catalog, pg_temp"] for row in definers)


async def test_the_functions_leave_nothing_on_the_connection(database):
    club = small(1)
    await load(database, club)
    settings = await database.fetch("select name, setting from pg_settings order by name")
    async with database.transaction():
        for function in FUNCTIONS:
            await database.execute(f"select club.{function}($1)", club.tenants[0].id)
        held = await database.fetch("select * from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()")
    assert held == []
    assert await database.fetch("select name, setting from pg_settings order by name") == settings
    assert await database.fetch("select from pg_class where relpersistence = 't'") == []


async def test_active_tenants_lists_the_active_ones_in_order(database):
    await load(database, small(1, tenants=3))
    ids = [row["tenant_id"] for row in await database.fetch("select * from club.active_tenants()")]
    assert ids == sorted(ids)
    assert len(ids) == 3
    await database.execute("update club.tenant set active = false where id = $1", ids[1])
    assert [row["tenant_id"] for row in await database.fetch("select * from club.active_tenants()")] == [ids[0], ids[2]]


@pytest.mark.parametrize(("key", "value"), [("heavy_margin", 0), ("honours_size", 1.5), ("no_such_setting", 1)])
async def test_a_setting_that_makes_no_sense_is_refused(database, key, value):
    tenant_id = await database.fetchval("insert into club.tenant (name) values ('Odd') returning id")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await database.execute("insert into club.config values ($1, $2, $3)", tenant_id, key, value)


# --- the generator --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_club_and_another_seed_another():
    assert small(1) == small(1)
    assert small(1) != small(2)


def test_a_generated_match_has_sixteen_players_in_two_teams():
    club = small(1)
    for match in club.matches:
        teams = [entry.team for entry in club.player_matches if entry.match_id == match.id]
        assert (teams.count("a"), teams.count("b")) == (8, 8)
    assert {player.ringer for player in club.players} == {player.retired for player in club.players} == {True, False}
    assert [match.status for match in club.matches] == ["finished"] * 150 + ["scheduled"] * 5
    assert all(
        season.starts_on <= match.played_on <= season.ends_on
        for match in club.matches
        for season in club.seasons
        if season.id == match.season_id
    )


@pytest.mark.parametrize("size", [{"players": 15}, {"seasons": 0}, {"matches": 3, "seasons": 4}])
def test_a_club_too_small_to_play_is_refused(size):
    with pytest.raises(ValueError, match="match"):
        generate(1, **size)


async def test_load_tells_its_progress_and_leaves_the_numbering_ready(database):
    club = small(1)
    told: list[tuple[int, int]] = []
    await load(database, club, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == 1 + 40 + 3 + 155 + 155 * 16
    assert told == sorted(told)
    added = await database.fetchval(
        "insert into club.player (tenant_id, name) values ($1, 'Next') returning id", club.tenants[0].id
    )
    assert added == 41


async def test_finish_match_takes_the_next_one_until_none_is_left(database):
    club = small(1)
    tenant_id = club.tenants[0].id
    await load(database, club)
    assert [await finish_match(database, tenant_id) for _ in range(5)] == [151, 152, 153, 154, 155]
    assert await database.fetchval("select count(*) from club.match where status = 'scheduled'") == 0
    with pytest.raises(LookupError, match="no scheduled match left"):
        await finish_match(database, tenant_id)
