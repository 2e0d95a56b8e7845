"""`worker demo reconcile`, end to end as a real process."""

import json
import signal

import asyncpg

from tests.demo.test_demo import SECONDS, demo, leftovers
from tests.jobs import league
from worker.demo import tables

DRIFT = 60  # 2 competitions and 50 seasons to add, 2 and 5 to update, 1 completed without evidence


def test_demo_does_what_it_says() -> None:
    process = demo("reconcile", "--json")
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert set(told) == {"teams", "dry_run", "kill", "execute", "job", "in_sync", "seconds"}
    assert told["teams"] == 100_000
    assert told["dry_run"] == {"drift": DRIFT, "held": 2, "unproven": 1}
    assert told["kill"] == {"unchanged": True}
    assert {**told["execute"], "seconds": 0} == {"drift": DRIFT, "fixed": DRIFT - 1, "as_planned": True, "seconds": 0}
    assert told["job"] == {"drift": 4, "fixed": 4}
    assert told["in_sync"] is True
    assert "📊 Processing C004: 500 teams, 25 seasons" in err
    assert "   🔄 Would UPDATE season_progress: 2001 (20 teams)" in err
    assert "left alone: C009 1990, unproven" in err
    assert leftovers(process.pid) == []


def test_interrupted_it_leaves_nothing() -> None:
    process = demo("reconcile")
    assert process.stdout is not None
    while "installed the reconcile" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    assert leftovers(process.pid) == []


def test_a_configuration_of_one_s_own_is_refused() -> None:
    process = demo("reconcile", "--config", "worker.toml")
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert "brings its own" in err


async def test_every_function_has_a_comment(connection: asyncpg.Connection) -> None:
    await league.install(connection)
    await tables.apply(connection, "league")
    functions = await connection.fetch(
        "select proname, obj_description(oid, 'pg_proc') from pg_proc where pronamespace = 'demo'::regnamespace"
    )
    assert len(functions) > 5
    assert [name for name, comment in functions if not comment] == []
