"""Game sync in SQL: starting one, and what refuses it."""

import asyncio
import uuid
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from tests.jobs import games
from tests.jobs.games import analysed, ends, runs, seen, start, store, user

LATE, EARLY = (datetime.fromisoformat(f"2026-0{month}-01T00:00:00Z") for month in (2, 1))


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await games.install(connection)
    return connection


async def test_a_start_makes_a_job_and_its_record_before_anything_is_done(db: asyncpg.Connection) -> None:
    who = await user(db, lichess="Ann_L")
    made = await start(db, who, months=2, filters={"kind": "blitz", "result": ["win", "loss"]})
    assert made["status"] == "pending"
    job = await db.fetchrow("select * from worker.jobs where id = $1", made["job_id"])
    assert (job["job_type"], job["tenant_id"], job["status"]) == ("sync_games", str(who), "pending")
    sync = await db.fetchrow("select * from games.sync where id = $1", made["sync_id"])
    assert (sync["username"], sync["months"], sync["job_id"]) == ("Ann_L", 2, made["job_id"])
    assert orjson.loads(sync["filters"]) == {"kind": ["blitz"], "result": ["win", "loss"]}
    assert sync["to_at"] - sync["from_at"] == timedelta(days=60)
    shown = await seen(db, made["sync_id"])
    assert (shown["status"], shown["games_found"], shown["games_analyzed"], shown["completed_at"]) == (
        "pending",
        0,
        0,
        None,
    )


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"platform": "icc"}, "GS400", "there is no platform"),
    ({"platform": None}, "GS400", "there is no platform"),
    ({"platform": "chess.com"}, "GS400", "has no name on chess.com"),
    ({"months": 0}, "GS400", "nothing lies between"),
    ({"months": 121}, "GS400", "nothing lies between"),
    ({"from_at": LATE, "to_at": EARLY}, "GS400", "nothing lies between"),
    ({"from_at": datetime.fromisoformat("1970-01-01T00:00:00Z")}, "GS400", "nothing lies between"),
    ({"filters": {"clock": "fast"}}, "GS400", 'no filter "clock"'),
    ({"filters": {"kind": "slow"}}, "GS400", "cannot be"),
    ({"filters": {"result": []}}, "GS400", "cannot be"),
    ({"filters": {"colour": {"white": True}}}, "GS400", "cannot be"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "state", "said"), REFUSED, ids=[str(asked) for asked, *_ in REFUSED])
async def test_a_start_that_makes_no_sense_is_refused_with_400(
    db: asyncpg.Connection, asked: dict[str, Any], state: str, said: str
) -> None:
    who = await user(db, chess_com=None)
    with pytest.raises(asyncpg.PostgresError, match=said) as refused:
        await start(db, who, **asked)
    assert refused.value.sqlstate == state
    assert await db.fetchval("select count(*) from worker.jobs") == 0


async def test_a_start_for_nobody_is_refused_with_404(db: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.PostgresError, match="there is no user") as refused:
        await start(db, uuid.uuid4())
    assert refused.value.sqlstate == "GS404"


@pytest.mark.parametrize("phase", ["pending", "fetching", "analyzing"])
async def test_a_second_active_sync_is_refused_with_409_and_the_first_one_s_id(
    db: asyncpg.Connection, phase: str
) -> None:
    who = await user(db)
    first = await start(db, who)
    if phase != "pending":
        await runs(db, first["job_id"], phase)
    with pytest.raises(asyncpg.PostgresError, match="a sync of lichess is active") as refused:
        await start(db, who)
    assert (refused.value.sqlstate, refused.value.as_dict()["detail"]) == ("GS409", str(first["sync_id"]))
    await start(db, who, "chess.com")
    await start(db, await user(db))
    await ends(db, first["job_id"], "completed")
    assert (await start(db, who))["sync_id"] != first["sync_id"]


async def test_of_many_starts_at_once_one_is_made(db: asyncpg.Connection, dsn: str) -> None:
    who = await user(db)
    several = [await asyncpg.connect(dsn) for _ in range(8)]
    try:
        came = await asyncio.gather(*(start(each, who) for each in several), return_exceptions=True)
    finally:
        for each in several:
            await each.close()
    made = [each for each in came if not isinstance(each, BaseException)]
    assert len(made) == 1
    refused = {(each.sqlstate, each.as_dict()["detail"]) for each in came if isinstance(each, asyncpg.PostgresError)}
    assert refused == {("GS409", str(made[0]["sync_id"]))}
    assert await db.fetchval("select count(*) from games.sync") == 1


ROLES = """
create role games_app login in role worker_enqueue;
create role games_user login in role worker_tenant;
create role games_operator login in role worker_operate;
create role games_reader login in role worker_read;
create role games_daemon login in role worker_run;
"""


async def test_who_may_do_what(db: asyncpg.Connection) -> None:
    transaction = db.transaction()
    await transaction.start()
    try:
        await db.execute(ROLES)
        ann, ben = await user(db), await user(db)
        await db.execute("set local role games_app")
        anns = await start(db, ann)
        assert (await seen(db, anns["sync_id"]))["status"] == "pending"
        await refused_to(db, "select games.fix($1)", anns["sync_id"], state="42501")
        await db.execute("set local role games_user")
        await refused_to(db, "select * from games.start($1, 'lichess')", ann, state="GS403")
        await db.execute("select set_config('request.jwt.claims', $1, true)", f'{{"tenant_id": "{ben}"}}')
        await refused_to(db, "select * from games.start($1, 'lichess')", ann, state="GS403")
        await refused_to(db, "select * from games.status($1)", anns["sync_id"], state="GS403")
        await refused_to(db, "select * from games.recent($1)", ann, state="GS403")
        bens = await start(db, ben)
        await refused_to(db, "select * from games.start($1, 'lichess')", ben, state="GS409")
        assert [row["id"] for row in await db.fetch("select * from games.sync_jobs")] == [bens["sync_id"]]
        assert [row["id"] for row in await db.fetch("select * from games.sync")] == [bens["sync_id"]]
        await refused_to(db, "update games.sync set outcome = 'completed'", state="42501")
        await refused_to(db, "delete from games.analysis", state="42501")
        await refused_to(db, "select games.fix($1)", bens["sync_id"], state="42501")
        await db.execute("select set_config('request.jwt.claims', '', true)")
        await works(db, anns)
        await db.execute("set local role games_reader")
        assert len(await db.fetch("select * from games.sync_jobs")) == 2
        await refused_to(db, "select games.cleanup_stuck()", state="42501")
        await db.execute("set local role games_operator")
        assert await db.fetchval("select games.fix($1)", bens["sync_id"]) == "cancelled"
        actor = await db.fetchval("select actor from worker.job_event where event = 'cancel'")
        assert actor == "games_operator"
    finally:
        await transaction.rollback()


async def works(db: asyncpg.Connection, made: asyncpg.Record) -> None:
    """All that the daemon does, with a daemon's rights."""
    await db.execute("reset role")
    await runs(db, made["job_id"])
    await db.execute("set local role games_daemon")
    sync, job = made["sync_id"], made["job_id"]
    assert len(await db.fetch("select * from games.open_sync($1, $2)", sync, job)) == 1
    assert await store(db, sync, job, "a", "b")
    assert await db.fetchval("select games.end_fetch($1, $2, 1, false)", sync, job)
    assert await db.fetchval("select games.begin_analysis($1, $2, 1)", sync, job)
    one, two = [row[0] for row in await db.fetch("select games.pending($1)", sync)]
    assert len(await db.fetch("select * from games.read($1)", [one, two])) == 2
    await analysed(db, sync, job, {"game_id": one}, {"game_id": two, "status": "failed", "note": "why"})
    assert len(await db.fetch("select games.trouble($1)", sync)) == 1
    assert await db.fetchval("select games.end_sync($1, $2, 1, 'completed', null)", sync, job)
    await refused_to(db, "select games.fix($1)", sync, state="42501")
    assert [row["level"] for row in await db.fetch("select * from games.check()")] == ["ok"]


async def refused_to(db: asyncpg.Connection, call: str, *arguments: Any, state: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        async with db.transaction():
            await db.fetch(call, *arguments)
    assert refused.value.sqlstate == state, refused.value
