"""The SQL of the progress reconcile: the plan against a model of it, and the plan against what is applied."""

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.heart import until
from tests.jobs import league
from tests.jobs.league import apply, brief, collect, competition, digest, plan, season

NAMES, YEARS = ("A", "B", "b", "Ü"), ("2023", "2024", "23/24")
STATUSES = ("pending", "in_progress", "seasons_discovered", "completed", "failed")
AGES = st.sampled_from([None, 1, 29, 31, 600])  # minutes since a worker began
SLOW_LOOK = """
create or replace function league.held(status text, started_at timestamptz, live interval) returns boolean
language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(77); return false; end $$
"""


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await league.install(connection)
    return connection


def records(keys: Any) -> Any:
    """Records of progress by key: status, what it says, how many minutes ago it was started."""
    return st.dictionaries(keys, st.tuples(st.sampled_from(STATUSES), st.integers(0, 3), AGES), max_size=8)


SEASONS = st.tuples(st.sampled_from(NAMES), st.sampled_from(YEARS))
TEAMS = st.dictionaries(SEASONS, st.integers(1, 3), max_size=8)
URLS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([None, " ", "u1", "u2"])), max_size=6, unique=True)


def action(kept: tuple[str, int, int | None] | None, evidence: int) -> str | None:
    """What is to be done about one record, worked out without SQL."""
    if kept is None:
        return "add" if evidence else None
    status, says, ago = kept
    if not evidence:
        return "unproven" if status == "completed" else None
    if (status, says) == ("completed", evidence):
        return None
    return "held" if status == "in_progress" and ago is not None and ago < 30 else "update"


def expected(teams: Any, competitions: Any, seasons: Any) -> set[tuple[str, str, str | None]]:
    found = {name: sum(1 for which, _ in teams if which == name) for name in NAMES}
    of_competitions = {(action(competitions.get(name), found[name]), name, None) for name in NAMES}
    keys = set(teams) | set(seasons)
    of_seasons = {(action(seasons.get(key), teams.get(key, 0)), *key) for key in keys}
    return {(deed, *key) for deed, *key in of_competitions | of_seasons if deed}  # type: ignore[misc]


async def enter(db: asyncpg.Connection, teams: Any, competitions: Any, seasons: Any, urls: Any) -> None:
    await db.executemany(
        "insert into league.teams select 'c' || n, $2, $1, '2026-01-01' from generate_series(1, $3) n",
        [(*key, clubs) for key, clubs in teams.items()],
    )
    for name, (status, says, ago) in competitions.items():
        await competition(db, name, status, seasons=says, ago=ago, worker="w", error="e")
    for (name, year), (status, says, ago) in seasons.items():
        await season(db, name, year, status, clubs=says, ago=ago, worker="w", error="e")
    await db.executemany("insert into league.competitions (competition_id, competition_url) values ($1, $2)", urls)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(teams=TEAMS, competitions=records(st.sampled_from(NAMES)), seasons=records(SEASONS), urls=URLS)
async def test_what_is_applied_is_the_plan_and_the_plan_is_the_model_s(
    db: asyncpg.Connection, teams: Any, competitions: Any, seasons: Any, urls: Any
) -> None:
    transaction = db.transaction()
    await transaction.start()
    try:
        await enter(db, teams, competitions, seasons, urls)
        planned = await plan(db)
        assert set(brief(planned)) == expected(teams, competitions, seasons)
        assert len(brief(planned)) == len(set(brief(planned)))
        assert await apply(db) == planned
        left = await plan(db)
        assert left == [row for row in planned if row["action"] in ("held", "unproven")]
        assert await apply(db) == left
        await assert_only_with_evidence(db, competitions, seasons)
    finally:
        await transaction.rollback()


SEASONS_NOW = """
select kept.competition_id, kept.season_year, kept.clubs_saved, count(team.club_id)
  from league.season_progress kept left join league.teams team using (competition_id, season_year)
 where kept.status = 'completed' group by kept.competition_id, kept.season_year
"""
COMPETITIONS_NOW = """
select kept.competition_id, kept.seasons_discovered, count(distinct team.season_year)
  from league.competition_progress kept left join league.teams team using (competition_id)
 where kept.status = 'completed' group by kept.competition_id
"""


async def assert_only_with_evidence(db: asyncpg.Connection, competitions: Any, seasons: Any) -> None:
    """Whatever is completed has teams, as many as it says, or was completed before anybody reconciled."""
    for name, year, says, clubs in await db.fetch(SEASONS_NOW):
        assert clubs == says or (clubs == 0 and seasons[name, year][0] == "completed")
    for name, says, years in await db.fetch(COMPETITIONS_NOW):
        assert years == says or (years == 0 and competitions[name][0] == "completed")


async def test_the_records_that_come_out(db: asyncpg.Connection) -> None:
    await collect(db, "EPL")
    await db.execute("insert into league.competitions (competition_id, competition_url) values ('EPL', 'https://e')")
    await season(db, "EPL", "2024", "failed", worker="host_1", error="it broke")
    await apply(db)
    record = await db.fetchrow(
        "select competition_url, status, seasons_discovered, completed_at::date::text from league.competition_progress"
    )
    assert record is not None
    assert tuple(record) == ("https://e", "completed", 2, "2025-01-01")
    rows = await db.fetch(
        "select season_id, season_year, status, clubs_saved, worker_id, error_message, completed_at::date::text"
        " from league.season_progress order by season_year"
    )
    assert [tuple(row) for row in rows] == [
        ("tracker-EPL-2024", "2024", "completed", 3, None, None, "2024-01-01"),
        ("EPL_2025", "2025", "completed", 3, None, None, "2025-01-01"),
    ]


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ([], "MISSING_URL_FOR_EPL"),
        ([None], "MISSING_URL_FOR_EPL"),
        (["  "], "MISSING_URL_FOR_EPL"),
        ([None, "", "https://first", "https://a-second"], "https://first"),
    ],
)
async def test_urls(db: asyncpg.Connection, urls: list[str | None], expected: str) -> None:
    """A missing one has a name, and of several the first counts, and no team twice."""
    await collect(db, "EPL", clubs=4)
    await db.executemany(
        "insert into league.competitions (competition_id, competition_url) values ('EPL', $1)", [(url,) for url in urls]
    )
    rows = await apply(db)
    assert {(row["teams"], row["seasons"]) for row in rows} == {(8, 2)}
    assert await db.fetchval("select competition_url from league.competition_progress") == expected
    assert await db.fetch("select distinct clubs_saved from league.season_progress") == [(4,)]
    assert await plan(db) == []


async def test_a_url_that_is_learned_later_takes_the_place_of_the_missing_one(db: asyncpg.Connection) -> None:
    await collect(db, "EPL")
    await apply(db)
    await db.execute("insert into league.competitions (competition_id, competition_url) values ('EPL', 'https://e')")
    assert brief(await apply(db)) == [("update", "EPL", None)]
    assert await db.fetchval("select competition_url from league.competition_progress") == "https://e"
    assert await plan(db) == []


async def test_what_a_live_worker_holds_is_left_alone(db: asyncpg.Connection) -> None:
    await collect(db, "EPL")
    await competition(db, "EPL", "in_progress", ago=29, worker="host_1")
    await season(db, "EPL", "2024", "in_progress", ago=1, worker="host_1")
    await season(db, "EPL", "2025", "in_progress", ago=31, worker="host_2")
    assert brief(await apply(db)) == [("held", "EPL", None), ("held", "EPL", "2024"), ("update", "EPL", "2025")]
    statuses = await db.fetch("select status, worker_id from league.season_progress order by season_year")
    assert [tuple(row) for row in statuses] == [("in_progress", "host_1"), ("completed", None)]


async def test_a_row_that_somebody_has_locked_is_left_alone(db: asyncpg.Connection, second: asyncpg.Connection) -> None:
    """Also one that a worker claims or adds at this very moment: it is not waited for, and not overwritten."""
    await collect(db, "EPL")
    await season(db, "EPL", "2024", "pending")
    async with second.transaction():
        await second.execute("update league.season_progress set status = 'in_progress', started_at = now()")
        rows = await apply(db)
        assert brief(rows) == [("add", "EPL", None), ("held", "EPL", "2024"), ("add", "EPL", "2025")]
    assert brief(await plan(db)) == [("held", "EPL", "2024")]


async def test_a_row_that_changed_since_the_plan_is_left_alone(
    db: asyncpg.Connection, second: asyncpg.Connection
) -> None:
    """Its worker came to its end between the look and the write, and knows better."""
    await collect(db, "EPL", ["2024"])
    await season(db, "EPL", "2024", "pending")
    await db.execute(SLOW_LOOK)
    await second.execute("select pg_advisory_lock(77)")
    applying = asyncio.create_task(apply(db))
    await until(second, "select count(*) = 1 from pg_locks where locktype = 'advisory' and not granted")
    await second.execute("update league.season_progress set status = 'completed', clubs_saved = 2")
    await second.execute("select pg_advisory_unlock(77)")
    assert brief(await applying) == [("add", "EPL", None), ("held", "EPL", "2024")]
    assert await db.fetchval("select clubs_saved from league.season_progress") == 2
    assert brief(await plan(db)) == [("update", "EPL", "2024")]


async def test_another_reconcile_is_waited_for_no_longer_than_lock_timeout(
    db: asyncpg.Connection, second: asyncpg.Connection
) -> None:
    await collect(db, "EPL")
    async with second.transaction():
        await apply(second)
        async with db.transaction():
            await db.execute("select league.set_timeouts('50 ms', '5 s')")
            with pytest.raises(asyncpg.LockNotAvailableError):
                async with db.transaction():
                    await apply(db)
        assert len(await plan(db)) == 3  # looking waits for nobody
    assert await apply(db) == []


async def test_a_statement_that_takes_too_long_is_ended(db: asyncpg.Connection) -> None:
    await league.many(db, 50)
    async with db.transaction():
        await db.execute("select league.set_timeouts('1 s', '1 ms')")
        with pytest.raises(asyncpg.QueryCanceledError):
            async with db.transaction():
                await apply(db)
    assert await db.fetchval("select count(*) from league.season_progress") == 0


async def test_one_competition_and_its_season_ids(db: asyncpg.Connection) -> None:
    """One at a time is all at once: by (competition, year), so no second record beside the tracker's own."""
    for name in ("EPL", "LIGA"):
        await collect(db, name)
        await season(db, name, "2024", "pending", season_id=f"{name}-own-name")
    assert {row["competition_id"] for row in await apply(db, "EPL")} == {"EPL"}
    assert {row["competition_id"] for row in await plan(db)} == {"LIGA"}
    await apply(db)
    assert await db.fetchval("select count(*) from league.season_progress") == 4
    assert await plan(db) == []


async def test_a_competition_id_is_never_code(db: asyncpg.Connection) -> None:
    name = "x'; drop table league.teams; --"
    await collect(db, name)
    assert len(await apply(db, name)) == 3
    assert await db.fetchval("select competition_url from league.competition_progress") == f"MISSING_URL_FOR_{name}"
    assert await db.fetchval("select count(*) from league.teams") == 6


async def test_stretches_cover_every_competition_once(db: asyncpg.Connection) -> None:
    for name in ("B", "a", "C", "Ü", "z"):
        await collect(db, name)
    await competition(db, "only-a-record", "completed")
    await season(db, "only-a-season", "2024", "completed")
    stretches = await db.fetch("select * from league.reconcile_batches(2)")
    assert [count for *_, count in stretches] == [2, 2, 2, 1]
    parts = [await db.fetch("select * from league.reconcile_plan($1, $2)", low, high) for low, high, _ in stretches]
    assert [row for part in parts for row in part] == await plan(db)


async def test_analysis(db: asyncpg.Connection) -> None:
    for number in range(25):
        await collect(db, f"C{number:02}", ["2024", "2025"][: 1 + number % 2], clubs=number + 1)
    await competition(db, "old", "in_progress", ago=50)
    await db.execute("update league.competition_progress set created_at = now() - interval '1 day'")
    await competition(db, "new", "completed")
    await season(db, "half", "2024", "completed")
    await season(db, "half", "2025", "pending")
    await season(db, "all", "2025", "completed")
    top = await db.fetch("select * from league.largest_competitions()")
    assert len(top) == 20
    assert tuple(top[0])[:3] == ("C23", 48, 2)
    assert [row["competition_id"] for row in await db.fetch("select * from league.latest_progress()")] == ["new", "old"]
    best = await db.fetch("select * from league.best_completion()")
    assert [(row["competition_id"], row["completed"], row["total"], float(row["ratio"])) for row in best] == [
        ("all", 1, 1, 1.0),
        ("half", 1, 2, 0.5),
    ]


async def test_looking_changes_nothing(db: asyncpg.Connection) -> None:
    await league.many(db, 20)
    before = await digest(db)
    async with db.transaction(isolation="repeatable_read", readonly=True):
        assert await plan(db)
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with db.transaction():
                await apply(db)
    assert await digest(db) == before


async def test_a_hundred_thousand_teams_are_a_handful_of_statements(db: asyncpg.Connection) -> None:
    """Set-based: the tables are written by one statement each, and read by scans that do not multiply."""
    await league.many(db, 500)
    assert await db.fetchval("select count(*) from league.teams") == 100_000
    await db.execute("load 'auto_explain'")
    said: list[str] = []
    db.add_log_listener(lambda _, message: said.append(message.message))
    await db.execute(
        "set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;"
        "set auto_explain.log_analyze = on; set auto_explain.log_timing = off;"
        "set auto_explain.log_level = 'notice'; set client_min_messages = 'notice'"
    )
    assert len(await apply(db)) == 5_500
    plans = [text for text in said if "Query Text" in text]
    assert 2 <= len(plans) < 10
    assert sum("Insert on season_progress" in text for text in plans) == 1
    assert sum("on teams" in text for text in plans) <= 2
    assert not any("Nested Loop" in line and "loops=1)" not in line for text in plans for line in text.splitlines())


async def test_the_plan_reads_one_competition_by_the_index(db: asyncpg.Connection) -> None:
    await league.many(db, 500)
    await db.execute("vacuum analyze league.teams")
    scanned = "select seq_scan from pg_stat_user_tables where relname = 'teams'"
    await db.execute("select pg_stat_force_next_flush()")
    before = await db.fetchval(scanned)
    assert len(await plan(db, "C00007")) == 11
    await db.execute("select pg_stat_force_next_flush()")
    assert await db.fetchval(scanned) == before


async def test_everything_is_commented_and_runs_with_the_caller_s_rights(db: asyncpg.Connection) -> None:
    functions = await db.fetch(
        "select proname, obj_description(oid, 'pg_proc') as said, prosecdef from pg_proc"
        " where pronamespace = 'league'::regnamespace"
    )
    assert len(functions) >= 9
    assert [row["proname"] for row in functions if not row["said"] or row["prosecdef"]] == []
    tables = await db.fetch(
        "select relname, obj_description(oid, 'pg_class') from pg_class"
        " where relnamespace = 'league'::regnamespace and relkind = 'r'"
    )
    assert len(tables) == 4
    assert [name for name, said in tables if not said] == []


async def test_applied_again_the_files_keep_what_is_there(db: asyncpg.Connection) -> None:
    await collect(db, "EPL")
    before = await digest(db)
    await league.install(db)
    assert await digest(db) == before
