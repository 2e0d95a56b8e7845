"""`worker demo sync`, end to end as a real process, and the provider that it brings."""

import json
import signal

import asyncpg
import pytest

from tests.demo.test_demo import SECONDS, demo, leftovers
from worker import migrations
from worker.demo import tables
from worker.demo.provider import Provider, make_orders, owed
from worker.demo.sync import CALLERS, ORDERS, SEED, SIZE

PAGES = -(-ORDERS // SIZE)


def test_demo_does_what_it_says() -> None:
    process = demo("sync", "--json")
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert set(told) == {
        "refused", "sync", "starts", "kill", "cancel", "rejected", "statistics", "seconds",
    }  # fmt: skip
    assert told["refused"] == "SY001"
    seen = told["sync"].pop("progress")
    assert (seen, seen[-1]) == (sorted(seen), 100)
    assert set(seen) <= {0, 10, 30, 60, 90, 95, 100}
    assert told["sync"] == {
        "orders": ORDERS, "pages": PAGES, "asked": PAGES + 4, "claims": owed(make_orders(SEED, ORDERS)), "attempts": 4,
    }  # fmt: skip
    assert told["starts"] == {"runs": 1, "refusals": CALLERS - 1}
    assert told["kill"] == {"page": 5, "asked_again": 1, "orders": ORDERS}
    assert told["cancel"]["stored"] == 1
    assert told["rejected"] == {"code": "AUTH_EXPIRED", "next_action": "reconnect"}
    assert told["statistics"] == {"total": 5, "successful": 3, "failed": 1, "cancelled": 1, "running": 0}
    assert "RATE_LIMITED, tried again in" in err
    assert leftovers(process.pid) == []


def test_interrupted_it_leaves_nothing() -> None:
    process = demo("sync")
    assert process.stdout is not None
    while "a sync, and a provider that fails" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")
    assert leftovers(process.pid) == []


async def test_every_function_has_a_comment(connection: asyncpg.Connection) -> None:
    await migrations.install(connection, "sync")
    await tables.apply(connection, "sync")
    functions = await connection.fetch(
        "select proname, obj_description(oid, 'pg_proc') from pg_proc where pronamespace = 'demo'::regnamespace"
    )
    assert len(functions) >= 4
    assert [name for name, comment in functions if not comment] == []


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (10, 1), (11, 2), (45, 5)])
def test_pages_of_the_provider(count: int, pages: int) -> None:
    assert Provider(make_orders(1, count), size=10).pages == pages


def test_the_same_seed_gives_the_same_orders() -> None:
    assert make_orders(3, 50) == make_orders(3, 50) != make_orders(4, 50)
    assert owed(make_orders(3, 0)) == 0
