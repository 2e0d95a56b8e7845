"""What a sync makes of a provider that fails: another attempt, a wait, or an end with a word for it."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.jobs.syncs import USER, connect, desk, finish, results, start, status
from worker import breaker
from worker.demo.provider import Provider, make_orders
from worker.demo.receiver import Reply
from worker.outcome import Completed, Failed, Retried, Snoozed

ORDERS = make_orders(7, 45)  # five pages


@pytest.fixture
async def provider():
    async with Provider(ORDERS, size=10) as serving:
        yield serving


@pytest.fixture
async def at(connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider):
    async with desk(connection, dsn, tmp_path, provider) as made:
        yield made


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [(Reply(500), "ProviderDown: the provider answered 500", "API_DOWN"),
     (Reply(404), "BadPage: the provider answered 404", "DATA_ERROR"),
     (Reply(200, b'{"orders": [', {"content-type": "application/json"}), "BadPage", "DATA_ERROR"),
     (Reply(manner="broken"), "Unreachable", "API_DOWN"),
     (Reply(manner="hang"), "TooSlow", "TIMEOUT"),
     (Reply(manner="endless"), "TooLarge", "DATA_ERROR"),
     (Reply.json(200, {"orders": [{"order_id": "A"}], "next_cursor": None}), "BadPage", "DATA_ERROR"),
     (Reply.json(200, {"orders": [], "next_cursor": 7}), "BadPage", "DATA_ERROR"),
     (Reply.json(200, {"orders": [{**ORDERS[0], "quantity": "many"}], "next_cursor": None}), "StepError", "DATA_ERROR"),
     (Reply.json(200, {"orders": [{**ORDERS[0], "price": "NaN"}], "next_cursor": None}), "StepError", "DATA_ERROR"),
     (Reply.json(200, {"orders": [], "next_cursor": "p3"}), "BadPage: page 3 leads to itself", "DATA_ERROR")],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)  # fmt: skip
async def test_a_fault_of_the_provider_costs_an_attempt_and_no_page(  # noqa: PLR0917
    connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider, reply: Reply, error: str, code: str
) -> None:
    provider.trouble(3, reply)
    patience = 3 if reply.manner == "hang" else 60
    settings = f"detect_stay = 0, answer_within = {patience}, page_bytes = 20000"
    async with desk(connection, dsn, tmp_path, provider, settings=settings) as at:
        sync = await start(connection)
        came = await at.run(sync)
        assert isinstance(came, Retried), came
        assert came.error.startswith(error)
        now = await status(connection)
        assert (now["status"], now["state"], now["page"], now["retry_count"]) == ("running", "retrying", 2, 0)
        assert now["error"].items() >= {"code": code, "next_action": "wait"}.items()
        assert 0 <= now["error"]["retry_after"] <= 120
        await at.move_clock("2m")
        assert isinstance(await finish(at, sync), Completed)
    assert provider.asked == {1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    assert (await results(connection, sync))["orders"] == 45
    assert (await status(connection))["error"] is None


@pytest.mark.parametrize(
    ("status_code", "headers", "seconds"),
    [(429, {"retry-after": "7"}, 7), (429, {}, 60), (429, {"retry-after": "soon"}, 60), (503, {"retry-after": "9"}, 9),
     (429, {"retry-after": "99999"}, 600)],
)  # fmt: skip
async def test_a_rate_limit_delays_and_costs_no_attempt(  # noqa: PLR0917
    at: Any, connection: asyncpg.Connection, provider: Provider, status_code: int, headers: Any, seconds: int
) -> None:
    provider.trouble(4, Reply(status_code, headers=headers))
    sync = await start(connection)
    came = await at.run(sync)
    assert came == Snoozed(seconds, keep_steps=True)
    now = await status(connection)
    assert (now["status"], now["state"], now["page"], now["attempt"]) == ("running", "snoozed", 3, 0)
    assert (now["error"]["code"], now["error"]["next_action"]) == ("RATE_LIMITED", "wait")
    assert 0 < now["error"]["retry_after"] <= seconds
    await at.move_clock("10m")
    assert isinstance(await finish(at, sync), Completed)
    assert provider.asked == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1}


async def test_a_provider_that_stays_away_fails_the_sync_and_raises_an_alert(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    provider.trouble(2, *[Reply(500)] * 5)
    sync = await start(connection)
    for _ in range(4):
        assert isinstance(await at.run(sync), Retried)
        await at.move_clock("2m")
    assert isinstance(await at.run(sync), Failed)
    now = await status(connection)
    assert (now["status"], now["progress"], now["retry_count"]) == ("failed", 30, 4)
    wanted = {
        "code": "API_DOWN", "message": "the provider answered 500", "next_action": "start_again", "retry_after": 120,
    }  # fmt: skip
    assert now["error"] == wanted
    alert = await connection.fetchval("select id from worker.job_queue where job_type = 'sync_alert'")
    await at.run(alert)
    raised = await connection.fetchrow("select * from sync.alerts")
    assert {key: raised[key] for key in ("sync_id", "user_id", "code", "message", "next_action")} == {
        "sync_id": sync, "user_id": USER, **{key: wanted[key] for key in ("code", "message", "next_action")},
    }  # fmt: skip
    retried = await connection.fetchval("select worker.retry($1)", sync)
    assert retried == "pending"
    assert isinstance(await finish(at, sync), Completed)
    assert provider.asked[1] == 1


async def test_a_token_that_counts_no_more_ends_it_for_good(
    at: Any, connection: asyncpg.Connection, provider: Provider
) -> None:
    provider.tokens.clear()
    sync = await start(connection)
    came = await at.run(sync)
    assert isinstance(came, Failed)
    now = await status(connection)
    assert (now["status"], now["progress"]) == ("failed", 10)
    assert (now["error"]["code"], now["error"]["next_action"]) == ("AUTH_EXPIRED", "reconnect")
    with pytest.raises(asyncpg.PostgresError, match="the provider has rejected it") as refused:
        await start(connection)
    assert refused.value.sqlstate == "SY001"
    provider.tokens.add("new")
    await connect(connection, token="new")
    assert isinstance(await finish(at, await start(connection)), Completed)


@pytest.mark.parametrize(("change", "said"), [("delete from sync.provider_accounts", "not found"),
    ("update sync.provider_accounts set expires_at = now()", "expired")])  # fmt: skip
async def test_a_token_that_went_between_start_and_run(
    at: Any, connection: asyncpg.Connection, provider: Provider, change: str, said: str
) -> None:
    sync = await start(connection)
    await connection.execute(change)
    came = await at.run(sync)
    assert isinstance(came, Failed)
    assert said in came.error
    assert provider.calls == []


@pytest.mark.parametrize(
    ("settings", "payload", "said"),
    [("pages = 3", {"user_id": USER}, "unexpected keyword argument 'pages'"),
     ("most_pages = 4", {"user_id": USER}, "more than 4 pages"),
     ("wait = 1", {"user_id": USER, "provider": "nobody"}, "there is no provider 'nobody'")],
)  # fmt: skip
async def test_what_cannot_work_fails_for_good(  # noqa: PLR0917
    connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider, settings: str, payload: Any, said: str
) -> None:
    async with desk(connection, dsn, tmp_path, provider, settings=settings) as at:
        await connection.execute("select sync.connect($1, 'nobody', 'x')", USER)
        came = await at.run(await at.enqueue("sync", payload))
        assert isinstance(came, Failed)
        assert said in came.error


async def test_requests_are_counted_against_a_rate_that_all_daemons_share(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path, provider: Provider
) -> None:
    async with desk(connection, dsn, tmp_path, provider, per="1h") as at:
        sync = await start(connection)
        came = await at.run(sync)
        assert isinstance(came, Snoozed), came
        assert provider.asked == {1: 1, 2: 1}  # the third permit, which was the first, was for the account
        now = await status(connection)
        assert (now["status"], now["state"], now["page"], now["attempt"]) == ("running", "snoozed", 2, 0)
        for _ in range(9):
            await at.move_clock("1h")
            if isinstance(await finish(at, sync), Completed):
                break
    assert (await results(connection, sync))["orders"] == 45
    assert provider.asked == dict.fromkeys(range(1, 6), 1)


async def test_while_nobody_answers_at_all_it_sleeps(
    connection: asyncpg.Connection, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "FAILURES", 1)
    monkeypatch.setattr(breaker, "FAILING_SECONDS", 0.0)
    async with desk(connection, dsn, tmp_path, None) as at:
        sync = await start(connection)
        came = await at.run(sync)
        assert isinstance(came, Retried), came
        assert (await status(connection))["error"]["code"] == "API_DOWN"
        await at.move_clock("2m")
        came = await at.run(sync)
        assert isinstance(came, Snoozed), came
        now = await status(connection)
        assert (now["state"], now["attempt"], now["error"]["code"]) == ("retrying", 1, "RATE_LIMITED")
        assert "are held back" in now["error"]["message"]
