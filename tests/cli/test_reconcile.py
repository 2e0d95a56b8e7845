"""reconcile: its lines, its JSON, its exit codes, and that it changes what it says or nothing."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile

import asyncpg
import pytest

from tests.cli.support import Answer, Cli
from tests.heart import until
from tests.jobs import league
from tests.jobs.league import collect, competition, digest, season
from tests.support import ROOT

SLOW = """
create function pg_temp_sleep() returns trigger language plpgsql as $$ begin perform pg_sleep(6); return null; end $$;
create trigger slow after insert on league.season_progress for each row when (new.competition_id = 'Z')
  execute function pg_temp_sleep();
"""
ASLEEP = "select count(*) = 1 from pg_stat_activity where wait_event = 'PgSleep' and query like '%reconcile_apply%'"
QUIET = "select count(*) = 0 from pg_stat_activity where query like '%reconcile_apply%' and pid <> pg_backend_pid()"


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await league.install(connection)
    return connection


async def reconcile(cli: Cli, *options: str) -> Answer:
    return await cli("reconcile", "--environment", "test", *options)


async def drifted(db: asyncpg.Connection) -> None:
    """Of everything one."""
    for name in ("EPL", "HELD", "SYNC"):
        await collect(db, name, ["2022", "2023"], clubs=10)
    await db.execute("insert into league.competitions (competition_id, competition_url) values ('EPL', 'https://e')")
    await season(db, "EPL", "2022", "failed", clubs=4)
    await competition(db, "HELD", "in_progress", ago=5, worker="host_7")
    await season(db, "HELD", "2022", "completed", clubs=10)
    await season(db, "HELD", "2023", "completed", clubs=10)
    await league.apply(db, "SYNC")
    await season(db, "GHOST", "1999", "completed", clubs=7)


DRY = """\
🔄 Direct sync initialized for test (dry run)
📊 Processing EPL: 20 teams, 2 seasons
   ➕ Would ADD competition_progress record
   🔄 Would UPDATE season_progress: 2022 (10 teams)
   ➕ Would ADD season_progress: 2023 (10 teams)
📊 Processing GHOST: 0 teams, 0 seasons
   ❓ COMPLETED WITHOUT EVIDENCE: season_progress: 1999 (it says 7, there are no teams)
📊 Processing HELD: 20 teams, 2 seasons
   ⏳ HELD by a live worker: competition_progress (host_7)
📊 SUMMARY:
   Competitions to add: 1
   Competitions to update: 0
   Seasons to add: 1
   Seasons to update: 1
   Held by live workers: 1
   Completed without evidence: 1
💡 Nothing was changed; --execute makes these changes
💡 What is completed without evidence is never changed: collect its teams, or set its record back
"""


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(cli: Cli, db: asyncpg.Connection) -> None:
    await drifted(db)
    before = await digest(db)
    answer = await reconcile(cli)
    assert (answer.code, answer.out, answer.err) == (1, DRY, "")
    assert await digest(db) == before


async def test_execute_does_what_the_dry_run_said(cli: Cli, db: asyncpg.Connection) -> None:
    await drifted(db)
    dry = await reconcile(cli, "--json")
    done = await reconcile(cli, "--json", "--execute")
    assert done.value["changes"] == dry.value["changes"]
    assert (dry.code, done.code) == (1, 1)  # what has no evidence is left
    assert {key: dry.value[key] for key in ("environment", "execute", "competition", "found", "in_sync")} == {
        "environment": "test", "execute": False, "competition": None, "found": True, "in_sync": False,
    }  # fmt: skip
    assert (dry.value["drift"], dry.value["fixed"], done.value["fixed"]) == (4, 0, 3)
    assert dry.value["counts"] == {
        "competitions": {"add": 1, "update": 0, "held": 1, "unproven": 0},
        "seasons": {"add": 1, "update": 1, "held": 0, "unproven": 1},
    }
    assert done.value["changes"][0] == {
        "record": "competition", "action": "add", "competition_id": "EPL", "season_year": None, "season_id": None,
        "competition_url": "https://e", "old_status": None, "old_count": None, "new_count": 2, "worker_id": None,
        "completed_at": "2023-01-01T00:00:00+00:00", "teams": 20, "seasons": 2,
    }  # fmt: skip
    left = await reconcile(cli, "--json")
    assert [row["action"] for row in left.value["changes"]] == ["unproven", "held"]


async def test_what_was_done_is_said_as_done(cli: Cli, db: asyncpg.Connection) -> None:
    await collect(db, "EPL", ["2023"], clubs=5)
    done = await reconcile(cli, "--execute")
    assert done.code == 0
    assert done.out == (
        "🔄 Direct sync initialized for test\n📊 Processing EPL: 5 teams, 1 seasons\n"
        "   ➕ ADDED competition_progress record (MISSING_URL_FOR_EPL)\n   ➕ ADDED season_progress: 2023 (5 teams)\n"
        "📊 SUMMARY:\n   Competitions added: 1\n   Competitions updated: 0\n   Seasons added: 1\n"
        "   Seasons updated: 0\n✅ In sync\n"
    )
    again = await reconcile(cli, "--execute")
    assert (again.code, again.out.splitlines()[-1]) == (0, "✅ In sync")
    assert (await reconcile(cli)).code == 0


@pytest.mark.parametrize("options", [(), ("--execute",)])
async def test_what_a_live_worker_holds_is_no_drift(cli: Cli, db: asyncpg.Connection, options: tuple[str, ...]) -> None:
    await collect(db, "EPL", ["2023"])
    await league.apply(db)
    await db.execute("update league.season_progress set status = 'in_progress', worker_id = 'h', started_at = now()")
    answer = await reconcile(cli, *options)
    assert answer.code == 0
    assert "   ⏳ HELD by a live worker: season_progress: 2023 (h)\n" in answer.out
    assert await db.fetchval("select status from league.season_progress") == "in_progress"


async def test_one_competition(cli: Cli, db: asyncpg.Connection) -> None:
    for name in ("EPL", "LIGA"):
        await collect(db, name)
    assert (await reconcile(cli, "--competition", "EPL", "--execute")).code == 0
    assert await db.fetch("select competition_id from league.competition_progress") == [("EPL",)]
    assert (await reconcile(cli, "--competition", "EPL")).code == 0
    assert (await reconcile(cli)).code == 1


@pytest.mark.parametrize("options", [(), ("--execute",)])
async def test_a_competition_without_teams_is_a_no(cli: Cli, db: asyncpg.Connection, options: tuple[str, ...]) -> None:
    await competition(db, "X", "completed", seasons=1)
    for name in ("X", "x'; drop table league.teams; --"):
        before = await digest(db)
        answer = await reconcile(cli, "--competition", name, *options)
        assert answer.code == 1
        assert f"❌ No teams data found for {name}\n" in answer.out
        assert await digest(db) == before
    told = await reconcile(cli, "--competition", "X", "--json", *options)
    assert (told.code, told.value["found"], told.value["drift"]) == (1, False, 1)


async def test_analyze_shows_three_lists_and_changes_nothing(cli: Cli, db: asyncpg.Connection) -> None:
    await drifted(db)
    before = await digest(db)
    told, value = await reconcile(cli, "--analyze"), (await reconcile(cli, "--analyze", "--json")).value
    assert told.code == 0
    assert [line for line in told.out.splitlines() if line.startswith("📊")] == [
        "📊 Top 20 competitions by teams",
        "📊 Last 10 records of competition_progress",
        "📊 Top 10 competitions by completed seasons",
    ]
    assert [row["competition_id"] for row in value["competitions"]] == ["EPL", "HELD", "SYNC"]
    assert {row["competition_id"] for row in value["progress"]} == {"HELD", "SYNC"}
    assert value["completion"][-1] == {"competition_id": "EPL", "completed": 0, "total": 1, "ratio": 0.0}
    assert await digest(db) == before


@pytest.mark.parametrize("options", [("--analyze",), ()])
async def test_looking_is_enough_where_nothing_can_be_written(
    cli: Cli, db: asyncpg.Connection, options: tuple[str, ...]
) -> None:
    """As on a replica."""
    await drifted(db)
    name = await db.fetchval("select current_database()")
    await db.execute(f"alter database {name} set default_transaction_read_only = on")
    answer = await reconcile(cli, "--json", *options)
    assert answer.code == (0 if options else 1)
    assert answer.value["environment"] == "test"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--environment"),
        (("--environment", "production", "--execute"), "--environment production, but "),
        (("--environment", "test", "--analyze", "--execute"), "--analyze"),
        (("--environment", "test", "--analyze", "--competition", "X"), "--analyze"),
    ],
)
async def test_bad_usage_is_refused_before_anything(
    cli: Cli, db: asyncpg.Connection, arguments: tuple[str, ...], said: str
) -> None:
    await collect(db, "EPL")
    answer = await cli("reconcile", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert await db.fetchval("select count(*) from league.competition_progress") == 0


async def test_without_the_shipped_sql_it_says_what_to_apply(cli: Cli) -> None:
    answer = await reconcile(cli)
    assert (answer.code, answer.out) == (2, "")
    assert "apply sql/jobs/reconcile/*.sql" in answer.err
    traced = await reconcile(cli, "--debug")
    assert traced.code == 2
    assert "Traceback" in traced.err
    assert "Traceback" not in answer.err


async def test_an_error_in_the_middle_is_exit_code_2_and_nothing_done(cli: Cli, db: asyncpg.Connection) -> None:
    await league.many(db, 600, seasons=1, clubs=1)
    await db.execute("alter table league.season_progress add check (competition_id <> 'C00590')")
    before = await digest(db)
    answer = await reconcile(cli, "--execute")
    assert (answer.code, answer.out) == (2, "")
    assert "23514" in answer.err
    assert await digest(db) == before


async def test_debug_tells_each_statement(cli: Cli, db: asyncpg.Connection) -> None:
    await league.many(db, 600, seasons=1, clubs=1)
    answer = await reconcile(cli, "--debug", "--json")
    assert answer.value["drift"] == 1200
    assert "comparing: 500 of 600 competitions" in answer.err
    assert "comparing: 600 of 600 competitions" in answer.err


async def test_another_reconcile_in_the_way_is_an_error_in_time(cli: Cli, db: asyncpg.Connection) -> None:
    await collect(db, "EPL")
    async with db.transaction():
        await league.apply(db)
        answer = await reconcile(cli, "--execute")
    assert answer.code == 2
    assert "another reconcile" in answer.err


async def test_two_at_once_do_the_work_once(cli: Cli, db: asyncpg.Connection) -> None:
    await league.many(db, 50, seasons=2, clubs=1)
    run = "reconcile", "--environment", "test", "--execute", "--json"
    answers = await asyncio.gather(cli.process(*run), cli.process(*run))
    assert [answer.code for answer in answers] == [0, 0]
    assert sorted(answer.value["fixed"] for answer in answers) == [0, 150]


async def test_a_bar_on_a_terminal(cli: Cli, db: asyncpg.Connection) -> None:
    """On big sets only, and not in the way of the JSON."""
    await league.many(db, 600, seasons=1, clubs=1)
    assert "comparing" in await asyncio.to_thread(on_a_terminal, cli)
    assert "comparing" not in await asyncio.to_thread(on_a_terminal, cli, "--competition", "C00001")


def on_a_terminal(cli: Cli, *options: str) -> str:
    """What a terminal at standard error gets to see."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "worker", "reconcile", "--environment", "test", "--json", *options]
    environment = {**os.environ, "DATABASE_URL": cli.dsn, "TERM": "xterm"}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [*command, "--config", str(cli.config)], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=out, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # its other end is closed
            while piece := os.read(ours, 4096):
                seen += piece
        os.close(ours)
        assert process.wait(60) == 1
        out.seek(0)
        assert json.load(out)["in_sync"] is False
    return seen.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
async def test_ended_in_mid_apply_nothing_is_half_done(cli: Cli, db: asyncpg.Connection, number: int) -> None:
    await league.many(db, 600, seasons=1, clubs=1)
    await collect(db, "Z", ["2024"])
    await db.execute(SLOW)
    before = await digest(db)
    process = cli.start("reconcile", "--environment", "test", "--execute")
    try:
        await until(db, ASLEEP, seconds=60)
        process.send_signal(number)
        out, err = await asyncio.to_thread(process.communicate, timeout=30)
    finally:
        process.kill()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert out == ""
    if number == signal.SIGINT:
        assert "rolled back" in err
    await until(db, QUIET)  # a server that was not told runs on to the end of its statement, and then finds nobody
    assert await digest(db) == before
