"""Game sync in SQL: what the job keeps, the old words, what operators do."""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import asyncpg
import orjson
import pytest

from tests.heart import enqueue
from tests.jobs import games
from tests.jobs.games import RUNNING, analysed, counts, ends, page, runs, seen, start, store, user
from worker import LostClaim
from worker.jobs.games.store import Store


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await games.install(connection)
    return connection


async def test_applied_again_the_files_keep_what_is_there(db: asyncpg.Connection) -> None:
    made = await start(db, await user(db))
    await games.install(db)
    assert (await seen(db, made["sync_id"]))["status"] == "pending"


async def test_everything_is_commented_and_pins_its_search_path(db: asyncpg.Connection) -> None:
    rows = await db.fetch(
        "select p.proname, p.prosecdef, p.proconfig, obj_description(p.oid) as said,"
        " has_function_privilege('public', p.oid, 'execute') as everybody"
        " from pg_proc p where pronamespace = 'games'::regnamespace"
    )
    assert [row["proname"] for row in rows if not row["said"]] == []
    assert [row["proname"] for row in rows if row["everybody"]] == []
    assert [row["proname"] for row in rows if row["proconfig"] != ["search_path=pg_catalog, pg_temp"]] == []
    assert {row["proname"] for row in rows if row["prosecdef"]} == {"start", "syncs", "status", "recent"}
    tables = await db.fetch(
        "select relname, relrowsecurity from pg_class where relnamespace = 'games'::regnamespace"
        " and relkind in ('r', 'v') and (obj_description(oid) is null or relkind = 'r' and not relrowsecurity)"
    )
    assert tables == []


WORDS = [
    ("pending", None, "pending"), ("running", None, "fetching"), ("running", "fetching", "fetching"),
    ("running", "analyzing", "analyzing"), ("completed", "analyzing", "completed"), ("skipped", None, "completed"),
    ("failed", "fetching", "failed"), ("cancelled", "analyzing", "failed"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "phase", "word"), WORDS)
async def test_statuses_in_the_old_words(db: asyncpg.Connection, status: str, phase: str | None, word: str) -> None:
    made = await start(db, await user(db))
    if status != "pending":
        await db.execute(RUNNING, made["job_id"], phase)
    if status not in ("pending", "running"):
        await ends(db, made["job_id"], status)
    shown = await seen(db, made["sync_id"])
    assert shown["status"] == word
    assert (shown["completed_at"] is not None) == (word in ("completed", "failed"))


async def test_pages_are_kept_once_and_up_to_the_bound(db: asyncpg.Connection) -> None:
    made = await start(db, await user(db))
    sync, job = made["sync_id"], made["job_id"]
    await runs(db, job)
    assert await store(db, sync, job, "a", "b", cursor=7)
    assert await store(db, sync, job, "b", "c", cursor=9, most=4)
    assert (await counts(db, sync))["found"] == 3
    assert await store(db, sync, job, "c", "d", "e", "f", cursor=8, most=4)
    assert (await counts(db, sync))["found"] == 4
    assert await db.fetchval("select cursor from games.sync") == 9
    progress = orjson.loads(await db.fetchval("select progress from worker.jobs"))
    assert progress == {"found": 4, "done": 0, "skipped": 0, "failed": 0, "percent": 0}


async def test_whoever_lost_the_claim_writes_nothing(db: asyncpg.Connection) -> None:
    made = await start(db, await user(db))
    sync, job = made["sync_id"], made["job_id"]
    await runs(db, job)
    await db.execute("update worker.job_queue set claim = 2")
    assert not await store(db, sync, job, "a")
    assert not await db.fetchval("select games.end_fetch($1, $2, 1, false)", sync, job)


@pytest.mark.parametrize(
    "write",
    [
        lambda kept: kept.page(page("b"), 7, 100), lambda kept: kept.fetched(True), lambda kept: kept.begin(),
        lambda kept: kept.record([{"game_id": 1, "status": "failed"}]), lambda kept: kept.end("completed", None),
    ],
)  # fmt: skip
async def test_what_was_written_without_the_claim_is_undone(
    db: asyncpg.Connection, write: Callable[[Store], Awaitable[object]]
) -> None:
    made = await start(db, await user(db))
    await runs(db, made["job_id"])
    await store(db, made["sync_id"], made["job_id"], "a")
    everything = "select jsonb_agg(s), jsonb_agg(g), jsonb_agg(k) from games.sync s, games.sync_game g, games.game k"
    before = await db.fetchrow(everything)
    lost: Any = SimpleNamespace(job=SimpleNamespace(id=made["job_id"], claim=7), connection=lambda: nullcontext(db))
    with pytest.raises(LostClaim):
        await write(Store(lost, str(made["sync_id"])))
    assert await db.fetchrow(everything) == before


async def test_a_long_note_fits_in_whatever_script(db: asyncpg.Connection) -> None:
    made = await start(db, await user(db))
    await runs(db, made["job_id"])
    await store(db, made["sync_id"], made["job_id"], "a")
    game = await db.fetchval("select games.pending($1)", made["sync_id"])
    await analysed(
        db, made["sync_id"], made["job_id"], {"game_id": game, "status": "failed", "note": "\U0001f40e" * 200}
    )
    assert (await counts(db, made["sync_id"]))["failed"] == 1


async def test_found_is_the_sum_and_an_analysis_is_linked_to_its_sync_and_job(db: asyncpg.Connection) -> None:
    made = await start(db, await user(db))
    sync, job = made["sync_id"], made["job_id"]
    await runs(db, job)
    await store(db, sync, job, "a", "b", "c", "d")
    await db.fetchval("select games.begin_analysis($1, $2, 1)", sync, job)
    one, two, three, four = [row[0] for row in await db.fetch("select games.pending($1)", sync)]
    await analysed(db, sync, job, {"game_id": one}, {"game_id": two, "status": "failed", "note": "unreadable"})
    await analysed(db, sync, job, {"game_id": three, "status": "skipped", "note": "no moves"})
    assert await counts(db, sync) == {"found": 4, "pending": 1, "done": 1, "skipped": 1, "failed": 1}
    assert (await seen(db, sync))["percent"] == 75
    await analysed(db, sync, job, {"game_id": four}, {"game_id": one, "nodes": 99})
    assert await counts(db, sync) == {"found": 4, "pending": 0, "done": 2, "skipped": 1, "failed": 1}
    linked = await db.fetch("select sync_id, job_id, nodes from games.analysis")
    assert {tuple(row) for row in linked} == {(sync, job, 1)}
    shown = await seen(db, sync)
    assert (shown["games_found"], shown["games_analyzed"], shown["games_failed"], shown["percent"]) == (4, 2, 1, 100)


async def test_a_game_that_is_analysed_is_skipped_and_one_that_failed_is_tried_again(db: asyncpg.Connection) -> None:
    who = await user(db)
    first = await start(db, who)
    await runs(db, first["job_id"])
    await store(db, first["sync_id"], first["job_id"], "a", "b")
    await db.fetchval("select games.begin_analysis($1, $2, 1)", first["sync_id"], first["job_id"])
    one, two = [row[0] for row in await db.fetch("select games.pending($1)", first["sync_id"])]
    await analysed(
        db, first["sync_id"], first["job_id"], {"game_id": one}, {"game_id": two, "status": "failed", "note": "why"}
    )
    await db.fetchval("select games.begin_analysis($1, $2, 1)", first["sync_id"], first["job_id"])
    assert [row[0] for row in await db.fetch("select games.pending($1)", first["sync_id"])] == [two]
    await ends(db, first["job_id"], "completed")
    second = await start(db, who)
    await runs(db, second["job_id"])
    await store(db, second["sync_id"], second["job_id"], "a", "b", "c")
    await db.fetchval("select games.begin_analysis($1, $2, 1)", second["sync_id"], second["job_id"])
    assert await counts(db, second["sync_id"]) == {"found": 3, "pending": 2, "done": 0, "skipped": 1, "failed": 0}
    assert (await seen(db, second["sync_id"]))["games_analyzed"] == 1


async def test_the_last_ten_of_a_user_newest_first(db: asyncpg.Connection) -> None:
    who = await user(db)
    made = []
    for _ in range(12):
        made.append(await start(db, who))
        await ends(db, made[-1]["job_id"], "completed")
    await start(db, await user(db))
    rows = await db.fetch("select * from games.recent($1)", who)
    assert [row["id"] for row in rows] == [each["sync_id"] for each in made[:1:-1]]
    assert len(await db.fetch("select * from games.recent($1, 12)", who)) == 12


async def test_what_is_pruned_says_how_it_ended(db: asyncpg.Connection) -> None:
    who = await user(db)
    one = await start(db, who)
    await runs(db, one["job_id"])
    await db.fetchval("select games.end_sync($1, $2, 1, 'completed', '1/2 games')", one["sync_id"], one["job_id"])
    two = await start(db, who, "chess.com")
    await db.execute("delete from worker.job_queue")
    rows = {row["id"]: row for row in await db.fetch("select * from games.recent($1)", who)}
    assert (rows[one["sync_id"]]["status"], rows[one["sync_id"]]["error"]) == ("completed", "1/2 games")
    assert rows[two["sync_id"]]["status"] == "failed"


async def test_stuck_is_who_shows_no_progress_in_whatever_phase(db: asyncpg.Connection) -> None:
    waiting, late, fetching, analyzing, moving = [await start(db, await user(db)) for _ in range(5)]
    await db.execute("select worker.set_clock(shift => interval '-3 hours')")
    for made, phase in ((fetching, "fetching"), (analyzing, "analyzing"), (moving, "analyzing")):
        await runs(db, made["job_id"], phase)
    await db.execute("update games.sync set moved_at = worker.now(), created_at = worker.now()")
    await db.execute("update worker.job_queue set scheduled_at = worker.now() where id = $1", late["job_id"])
    await db.execute("select worker.set_clock()")
    await store(db, moving["sync_id"], moving["job_id"], "a")
    stuck = {row["sync_id"] for row in await db.fetch("select * from games.stuck()")}
    assert stuck == {late["sync_id"], fetching["sync_id"], analyzing["sync_id"]}
    assert {row[0] for row in await db.fetch("select games.cleanup_stuck()")} == stuck
    asked = await db.fetch("select id, status from worker.jobs where cancel_requested_at is not null")
    assert {tuple(row) for row in asked} == {
        (late["job_id"], "cancelled"), (fetching["job_id"], "running"), (analyzing["job_id"], "running")
    }  # fmt: skip
    assert (await seen(db, waiting["sync_id"]))["status"] == "pending"


async def test_one_is_fixed_and_its_user_can_start_again(db: asyncpg.Connection) -> None:
    who = await user(db)
    made = await start(db, who)
    assert await db.fetchval("select games.fix($1, 'a test')", made["sync_id"]) == "cancelled"
    shown = await seen(db, made["sync_id"])
    assert (shown["status"], shown["error"]) == ("failed", "cancelled: a test")
    assert await db.fetchval("select games.fix($1)", made["sync_id"]) == "cancelled"
    again = await start(db, who)
    await ends(db, again["job_id"], "completed")
    assert await db.fetchval("select games.fix($1)", again["sync_id"]) == "completed"
    with pytest.raises(asyncpg.PostgresError) as refused:
        await db.fetchval("select games.fix($1)", uuid.uuid4())
    assert refused.value.sqlstate == "GS404"


async def test_a_job_without_a_sync_is_none(db: asyncpg.Connection) -> None:
    job = await enqueue(db, "sync_games", {"tenant_id": "t", "platform": "lichess", "sync_id": str(uuid.uuid4())})
    assert await db.fetch("select * from games.open_sync($1, $2)", uuid.uuid4(), job) == []


async def test_check_says_what_is_missing(db: asyncpg.Connection) -> None:
    async def said(level: str) -> list[str]:
        rows = await db.fetch("select said from games.check() where level = $1", level)
        return [row["said"] for row in rows]

    assert (len(await said("ok")), await said("fault"), await said("warning")) == (1, [], [])
    made = await start(db, await user(db))
    await db.execute("update worker.job_queue set scheduled_at = worker.now() - interval '3 hours'")
    await db.execute("update games.sync set moved_at = worker.now() - interval '3 hours'")
    await db.execute("update worker.job_type set audit = false, paused = true")
    assert await said("warning") == [
        "transitions of syncs are not audited", "syncs are paused", "1 syncs show no progress for 2 hours"
    ]  # fmt: skip
    await db.execute("alter table games.game disable row level security")
    await db.execute("update worker.job_type set unique_while = 'waiting'")
    assert await said("fault") == [
        "two syncs of one user and platform could be active at once", "row-level security of games.game is off"
    ]  # fmt: skip
    await db.execute("delete from worker.job_queue; delete from worker.job_type")
    assert "the job type sync_games is not declared" in await said("fault")
    assert await said("ok") == []
    assert made["status"] == "pending"
