"""Reminder, pause and end under the fake clock: who is sent what, and when."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.heart import until, write_config
from tests.jobs import crews
from tests.jobs.crews import DAY, HOUR, JOBS, MINUTE, START, answer, begin, install, jobs, live, number, one, outbox
from worker.outcome import Completed, Failed, Outcome, Skipped, Snoozed
from worker.testing import Bench, NotDue, bench

WAITS = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like '%auto_sync.pause%')"


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await install(connection)
    await connection.execute("select worker.set_clock($1)", START)
    return connection


@pytest.fixture
async def at(db: asyncpg.Connection, dsn: str, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(dsn, write_config(tmp_path, JOBS)) as made:
        yield made


async def run(at: Bench, sync: UUID, job_type: str, now: datetime | None = None) -> Outcome:
    """Run the live job of this type, at an instant."""
    if now:
        await at.stop_clock(now)
    live_ones = [job["id"] for job in await jobs(at.connection, sync, job_type) if not job["finished_at"]]
    return await at.run(*live_ones)


def result(came: Outcome) -> Any:
    assert isinstance(came, Completed)
    return came.result


async def test_24_hours_and_48_hours_exactly(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db)
    second = HOUR / 3600
    for job_type, due in (("reminder_24h", START + DAY), ("pause_check_48h", START + 2 * DAY)):
        with pytest.raises(NotDue):
            await run(at, sync, job_type, due - second)
        assert isinstance(await run(at, sync, job_type, due), Completed)
    row = await one(db, sync)
    assert (row["last_reminder_sent_at"], row["status"], row["paused_at"]) == (START + DAY, "paused", START + 2 * DAY)


async def test_5_and_10_minutes_in_the_demo_profile(at: Bench, db: asyncpg.Connection) -> None:
    await db.execute("select auto_sync.use_profile('demo')")
    sync = await begin(db)
    await run(at, sync, "reminder_24h", START + 5 * MINUTE)
    await run(at, sync, "pause_check_48h", START + 10 * MINUTE)
    assert (await one(db, sync))["paused_at"] == START + 10 * MINUTE


@pytest.mark.parametrize(
    ("late", "pause"),
    [(0 * HOUR, 48 * HOUR), (20 * HOUR, 48 * HOUR), (24 * HOUR, 72 * HOUR), (240 * HOUR, 288 * HOUR)],
    ids=["in time", "late", "past both", "long past both"],
)
async def test_away_past_both_times_the_reminder_goes_and_the_pause_waits_its_24_hours(
    at: Bench, db: asyncpg.Connection, late: Any, pause: Any
) -> None:
    sync = await begin(db)
    await run(at, sync, "reminder_24h", START + DAY + late)
    assert (await live(db, sync))["pause_check_48h"] == START + pause
    with pytest.raises(NotDue):
        await run(at, sync, "pause_check_48h", START + pause - MINUTE)
    assert result(await run(at, sync, "pause_check_48h", START + pause)) == {"paused": True}


async def test_only_those_who_have_not_answered_are_texted_and_the_counts_are_true(
    at: Bench, db: asyncpg.Connection
) -> None:
    sync = await begin(db, phones=[number(1), number(2), number(3), None, number(2)])
    await answer(db, sync, number(1))
    counts = result(await run(at, sync, "reminder_24h", START + DAY))
    assert counts == {"total": 5, "responded": 1, "asked": 4, "sent": 2, "failed": 0, "unknown": 0, "skipped": 2}
    rows = await db.fetch(
        "select phone, status, error from auto_sync.outbox where kind = 'reminder' order by status, phone"
    )
    assert [tuple(row) for row in rows] == [
        (number(2), "sent", None),
        (number(3), "sent", None),
        (number(2), "skipped", "the same number as another contact"),
        (None, "skipped", "no phone number"),
    ]
    (said,) = await crews.texts(db, sync, "reminder_notice")
    assert said.startswith("Reminder for Boat trip: sent to 2 of the 4 who have not answered, 2 left out. 1 of 5 have")
    messages = "select count(*) from auto_sync.auto_sync_messages where auto_sync_id = $1 and message_type = 'reminder'"
    assert await db.fetchval(messages, sync) == 2


@pytest.mark.parametrize("why", ["no options", "everybody answered"])
async def test_where_nobody_is_texted_the_organizer_hears_of_nobody(
    at: Bench, db: asyncpg.Connection, why: str
) -> None:
    sync = await begin(db, 2, ends=() if why == "no options" else (START + 30 * DAY,))
    if why != "no options":
        await answer(db, sync, number(1))
        await answer(db, sync, number(2), "not_available")
    assert result(await run(at, sync, "reminder_24h", START + DAY))["sent"] == 0
    (said,) = await crews.texts(db, sync, "reminder_notice")
    assert "sent to 0 of" in said
    assert (await one(db, sync))["last_reminder_sent_at"] is None


async def test_hosts_read_a_thread_in_place_of_an_sms(at: Bench, db: asyncpg.Connection) -> None:
    organizer = await crews.person(db, is_host=True)
    await crews.person(db, "Henri", number(1), is_host=True)
    sync = await begin(db, 2, organizer=organizer)
    counts = result(await run(at, sync, "reminder_24h", START + DAY))
    await run(at, sync, "pause_check_48h", START + 2 * DAY)
    assert counts["sent"] == 2
    threads = await db.fetch(
        "select p.name, left(t.body, 8) from auto_sync.message_thread t"
        " join auto_sync.profiles p on p.id = t.profile_id order by t.id"
    )
    told = [("Henri", "Hi Membe"), ("Olga", "Reminder"), ("Olga", "Boat tri")]
    assert [tuple(row) for row in threads] == told
    channels = await db.fetch("select kind, channel, status from auto_sync.outbox order by id")
    assert [tuple(row) for row in channels] == [
        ("reminder", "thread", "sent"),
        ("reminder", "sms", "sent"),
        ("reminder_notice", "thread", "sent"),
        ("pause_summary", "thread", "sent"),
    ]


async def test_who_answers_meanwhile_is_not_texted(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db, 2)
    await at.stop_clock(START + DAY)
    await db.execute("select * from auto_sync.begin_reminder($1, 0)", sync)
    await answer(db, sync, number(2))
    assert result(await run(at, sync, "reminder_24h"))["asked"] == 1
    assert await outbox(db, sync) == {number(1): "sent", number(2): "skipped"}


@pytest.mark.parametrize("to", ["paused", "stopped", "completed", "deleted"])
async def test_a_sync_that_is_not_running_is_neither_reminded_nor_paused(
    at: Bench, db: asyncpg.Connection, to: str
) -> None:
    """Also where its job is there all the same."""
    sync = await begin(db, ends=())
    if to == "deleted":
        await db.execute("delete from auto_sync.auto_syncs")
    else:
        await db.execute("update auto_sync.auto_syncs set status = $1", to)
    for job_type in ("reminder_24h", "pause_check_48h", "auto_end_check"):
        came = await at.run(await at.enqueue(job_type, {"sync_id": str(sync)}))
        said = {"deleted": "Auto sync not found"}.get(to, f"the auto sync is {to}")
        if job_type == "auto_end_check" and to == "paused":
            said = "the auto sync has no options"
        assert came == Skipped(said)
    assert await db.fetchval("select count(*) from auto_sync.outbox") == 0


async def test_who_has_reminded_already_is_not_reminded_again(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db)
    await run(at, sync, "reminder_24h", START + DAY)
    again = await at.enqueue("reminder_24h", {"sync_id": str(sync)})
    assert await at.run(again) == Skipped("reminded already")
    assert await db.fetchval("select count(*) from auto_sync.outbox where kind = 'reminder'") == 3


async def test_a_reminder_or_pause_that_comes_too_soon_waits(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db)
    await db.execute("update worker.job_queue set scheduled_at = $1", START)
    assert await run(at, sync, "reminder_24h") == Snoozed(until=START + DAY)
    early = await at.enqueue("pause_check_48h", {"sync_id": str(sync)})
    assert await at.run(early) == Snoozed(until=START + DAY + MINUTE)  # first the reminder
    await run(at, sync, "reminder_24h", START + DAY)
    assert await run(at, sync, "pause_check_48h", START + DAY + MINUTE) == Snoozed(until=START + 2 * DAY)
    assert result(await run(at, sync, "pause_check_48h", START + 2 * DAY)) == {"paused": True}


async def test_the_pause_tells_how_it_stands_and_opens_the_menu(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db, 4)
    await answer(db, sync, number(1))
    await answer(db, sync, number(2), "not_available")
    await run(at, sync, "reminder_24h", START + DAY)
    await run(at, sync, "pause_check_48h", START + 2 * DAY)
    (said,) = await crews.texts(db, sync, "pause_summary")
    assert said.startswith("Boat trip is paused: 2 of 4 have answered, 1 available, 1 not available, 2 no answer.")
    state = await db.fetchrow("select state, auto_sync_id from auto_sync.conversation_state")
    assert state is not None
    assert tuple(state) == ("auto_sync_paused_menu", sync)
    assert await outbox(db, sync, "pause_summary") == {"+14155559000": "sent"}
    assert set(await live(db, sync)) == {"auto_end_check"}


async def test_an_organizer_who_completes_it_at_this_moment_is_not_overwritten(
    at: Bench, db: asyncpg.Connection, second: asyncpg.Connection
) -> None:
    sync = await begin(db)
    await run(at, sync, "reminder_24h", START + DAY)
    await at.stop_clock(START + 2 * DAY)
    transaction = second.transaction()
    await transaction.start()
    await second.execute("update auto_sync.auto_syncs set response_goal = 'critical_mass' where id = $1", sync)
    pausing = asyncio.create_task(run(at, sync, "pause_check_48h"))
    await until(db, WAITS)
    await second.execute("update auto_sync.auto_syncs set status = 'completed' where id = $1", sync)
    await transaction.commit()
    assert await pausing == Skipped("the auto sync is completed")
    assert (await one(db, sync))["status"] == "completed"
    assert await crews.texts(db, sync, "pause_summary") == []


async def test_after_the_pause_the_organizer_s_reminder_gives_it_24_hours_more(
    at: Bench, db: asyncpg.Connection
) -> None:
    sync = await begin(db)
    await run(at, sync, "reminder_24h", START + DAY)
    await run(at, sync, "pause_check_48h", START + 2 * DAY)
    await at.stop_clock(START + 5 * DAY)
    go_on = "update auto_sync.auto_syncs set status = 'running', last_reminder_sent_at = worker.now() where id = $1"
    await db.execute(go_on, sync)
    assert result(await run(at, sync, "pause_check_48h", START + 6 * DAY)) == {"paused": True}
    assert len(await crews.texts(db, sync, "pause_summary")) == 2
    await at.stop_clock(START + 7 * DAY)
    await db.execute("update auto_sync.auto_syncs set status = 'running' where id = $1", sync)
    assert result(await run(at, sync, "reminder_24h", START + 8 * DAY))["sent"] == 3  # a new cycle, and nobody reminded


async def test_a_sync_that_goes_on_while_its_job_is_still_at_work_is_not_forgotten(
    at: Bench, db: asyncpg.Connection, second: asyncpg.Connection
) -> None:
    """The job that runs is what the new cycle is answered with; so it comes again when that is due."""
    sync = await begin(db)
    await run(at, sync, "reminder_24h", START + DAY)
    await at.stop_clock(START + 2 * DAY)
    transaction = second.transaction()
    await transaction.start()
    await second.execute("select * from auto_sync.auto_syncs where id = $1 for update", sync)
    pausing = asyncio.create_task(run(at, sync, "pause_check_48h"))
    await until(db, WAITS)
    await second.execute("update auto_sync.auto_syncs set status = 'paused' where id = $1", sync)
    go_on = "update auto_sync.auto_syncs set status = 'running', last_reminder_sent_at = worker.now() where id = $1"
    await second.execute(go_on, sync)
    await transaction.commit()
    assert await pausing == Snoozed(until=START + 3 * DAY)
    assert await live(db, sync) == {"pause_check_48h": START + 3 * DAY, "auto_end_check": START + 30 * DAY}


async def test_the_end_check_comes_again_until_the_last_option_is_over(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db, ends=(START + 3 * DAY, START + 4 * DAY))
    await db.execute("update auto_sync.auto_syncs set status = 'paused' where id = $1", sync)
    assert await run(at, sync, "auto_end_check", START + 3 * DAY) == Snoozed(until=START + 4 * DAY)
    assert result(await run(at, sync, "auto_end_check", START + 4 * DAY)) == {"stopped": True}
    row = await one(db, sync)
    assert (row["status"], row["stopped_at"]) == ("stopped", START + 4 * DAY)
    assert await db.fetchval("select count(*) from auto_sync.outbox") == 0  # silently


async def test_the_end_check_ends_the_other_jobs_and_not_itself(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db, ends=(START + HOUR,))
    assert result(await run(at, sync, "auto_end_check", START + HOUR)) == {"stopped": True}
    assert {job["job_type"]: job["status"] for job in await jobs(db, sync)} == {
        "auto_end_check": "completed",
        "reminder_24h": "cancelled",
    }


@pytest.mark.parametrize("payload", [{}, {"sync_id": "x"}, {"sync_id": None}, ["sync_id"], "x"], ids=json.dumps)
async def test_a_payload_without_a_sync_fails_for_good(at: Bench, payload: Any) -> None:
    await at.connection.execute("update worker.job_type set unique_key = null")
    came = await at.run(await at.enqueue("reminder_24h", payload))
    assert isinstance(came, Failed)
    assert came.reason == "invalid"


async def test_an_unknown_provider_fails_for_good(db: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
    async with bench(dsn, write_config(tmp_path, JOBS.replace('"console"', '"pigeon"'))) as at:
        came = await run(at, await begin(db), "reminder_24h", START + DAY)
    assert isinstance(came, Failed)
    assert "sms must be one of console, twilio" in came.error
