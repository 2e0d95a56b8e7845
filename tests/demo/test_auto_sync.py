"""`worker demo auto-sync`, end to end as a real process."""

import json
import signal

import asyncpg

from tests.demo.test_demo import SECONDS, demo, leftovers
from tests.jobs import crews
from worker.demo import tables

MINUTES = 26 * 60  # from the start to the end of the first option


def test_demo_does_what_it_says() -> None:
    process = demo("auto-sync", "--json")
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert told.pop("seconds") > 0
    assert told == {
        "due_minutes": {"reminder_24h": 5, "auto_end_check": MINUTES},
        "reminder": {"total": 10, "responded": 2, "asked": 8, "sent": 7, "failed": 0, "unknown": 0, "skipped": 1},
        "pause": {"status": "paused", "left": {"auto_end_check": MINUTES - 10}},
        "goes_on": {"pause_check_48h": 5, "auto_end_check": MINUTES - 13},
        "completed": {"left": 0},
        "crash": {"sent": 9, "unknown": 1, "most_for_one": 1},
        "stopped": {"status": "stopped"},
        "check": ["ok", "warning", "info"],
    }
    assert "killed; the outbox: 3 queued, 1 sending, 6 sent" in err
    assert "nobody got two texts" in err
    assert leftovers(process.pid) == []


def test_interrupted_it_leaves_nothing() -> None:
    process = demo("auto-sync")
    assert process.stdout is not None
    while "installed the auto sync" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    assert leftovers(process.pid) == []


async def test_every_function_has_a_comment(connection: asyncpg.Connection) -> None:
    await crews.install(connection)
    await tables.apply(connection, "auto_sync")
    functions = await connection.fetch(
        "select proname, obj_description(oid, 'pg_proc') from pg_proc where pronamespace = 'demo'::regnamespace"
    )
    assert len(functions) > 5
    assert [name for name, comment in functions if not comment] == []
