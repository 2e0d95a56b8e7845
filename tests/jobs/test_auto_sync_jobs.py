"""Which jobs a sync has, from its first moment to its last: triggers, in the transaction of whoever writes."""

from datetime import datetime
from uuid import UUID

import asyncpg
import pytest

from tests.heart import enqueue
from tests.jobs.crews import DAY, HOUR, MINUTE, START, TYPES, begin, install, jobs, live, one


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await install(connection)
    await connection.execute("select worker.set_clock($1)", START)
    return connection


async def status(db: asyncpg.Connection, sync: UUID, to: str, **more: object) -> None:
    """The application changes the status, and sets other columns with it."""
    columns = "".join(f", {name} = ${n}" for n, name in enumerate(more, 3))
    await db.execute(f"update auto_sync.auto_syncs set status = $2{columns} where id = $1", sync, to, *more.values())


async def at(db: asyncpg.Connection, now: datetime) -> None:
    await db.execute("select worker.set_clock($1)", now)


async def ended(db: asyncpg.Connection, sync: UUID) -> dict[str, str]:
    """Why the cancelled jobs of a sync were."""
    return {job["job_type"]: job["finish_reason"] for job in await jobs(db, sync) if job["status"] == "cancelled"}


async def claim(db: asyncpg.Connection, sync: UUID, job_type: str) -> int:
    """Have it run, as a daemon would."""
    (job,) = await jobs(db, sync, job_type)
    process = await db.fetchval("select worker.register('test', 0, '0', $1, 1, '1 hour')", [job_type])
    assert await db.fetchrow("select * from worker.claim_job($1, 1, $2)", process, job["id"])
    return int(job["id"])


async def test_a_running_sync_has_one_reminder_24_hours_after_its_start(db: asyncpg.Connection) -> None:
    sync = await begin(db, ends=(), started_at=START - HOUR)
    (job,) = await jobs(db, sync)
    assert (job["job_type"], job["status"], job["scheduled_at"]) == ("reminder_24h", "pending", START + 23 * HOUR)


async def test_without_started_at_it_starts_now(db: asyncpg.Connection) -> None:
    sync = await begin(db, ends=(), started_at=None)
    assert (await one(db, sync))["started_at"] == START
    assert await live(db, sync) == {"reminder_24h": START + DAY}


async def test_job_and_sync_are_one_transaction(db: asyncpg.Connection) -> None:
    transaction = db.transaction()
    await transaction.start()
    sync = await begin(db)
    assert await live(db, sync) != {}
    await transaction.rollback()
    assert await db.fetchval("select count(*) from worker.jobs") == 0


@pytest.mark.parametrize("was", ["paused", "stopped", "completed"])
async def test_only_a_running_sync_has_jobs(db: asyncpg.Connection, was: str) -> None:
    sync = await begin(db, status=was)
    assert await jobs(db, sync) == []


async def test_a_sync_that_is_there_before_the_files_is_left_alone(connection: asyncpg.Connection) -> None:
    await install(connection)
    await connection.execute("alter table auto_sync.auto_syncs disable trigger user")
    await connection.execute("alter table auto_sync.auto_sync_options disable trigger user")
    sync = await begin(connection)
    await connection.execute("alter table auto_sync.auto_syncs enable trigger user")
    await connection.execute("alter table auto_sync.auto_sync_options enable trigger user")
    await connection.execute("update auto_sync.auto_syncs set event_name = 'another', status = 'running'")
    await install(connection)
    assert await connection.fetchval("select auto_sync.mend()") == 0
    assert await jobs(connection, sync) == []


async def test_the_change_to_running_begins_it_as_well(db: asyncpg.Connection) -> None:
    sync = await begin(db, status="paused", started_at=None, ends=())
    await at(db, START + HOUR)
    await status(db, sync, "running")
    assert await live(db, sync) == {"reminder_24h": START + HOUR + DAY}
    await status(db, sync, "running", event_name="another")
    assert len(await jobs(db, sync)) == 1


async def test_one_live_job_for_each_sync_and_type_whoever_asks(db: asyncpg.Connection) -> None:
    sync, other = await begin(db, ends=()), await begin(db, ends=())
    for _ in range(3):
        await enqueue(db, "reminder_24h", {"sync_id": str(sync)})
    assert len(await jobs(db, sync)) == len(await jobs(db, other)) == 1
    await at(db, START + 2 * DAY)
    await claim(db, sync, "reminder_24h")
    await enqueue(db, "reminder_24h", {"sync_id": str(sync)})
    assert len(await jobs(db, sync)) == 1


@pytest.mark.parametrize("to", ["completed", "stopped", "deleted"])
async def test_the_end_of_a_sync_ends_its_jobs_in_the_same_transaction(db: asyncpg.Connection, to: str) -> None:
    sync, other = await begin(db), await begin(db)
    await enqueue(db, "pause_check_48h", {"sync_id": str(sync)}, scheduled_at=START + DAY)
    transaction = db.transaction()
    await transaction.start()
    await (
        db.execute("delete from auto_sync.auto_syncs where id = $1", sync) if to == "deleted" else status(db, sync, to)
    )
    assert await ended(db, sync) == dict.fromkeys(TYPES, f"auto sync {to}")
    assert await live(db, sync) == {}
    await transaction.rollback()
    assert set(await live(db, sync)) == set(await live(db, other)) | {"pause_check_48h"} == set(TYPES)


async def test_it_asks_running_jobs_to_end_and_ends_those_that_are_tried_again(db: asyncpg.Connection) -> None:
    sync = await begin(db)
    await at(db, START + DAY)
    running = await claim(db, sync, "reminder_24h")
    await db.execute(
        "update worker.job_queue set attempt = 3, started_at = $1 where job_type = 'auto_end_check'", START
    )
    await status(db, sync, "completed")
    row = await db.fetchrow(
        "select status, cancel_requested_at, cancel_reason from worker.job_queue where id = $1", running
    )
    assert row is not None
    assert tuple(row) == ("running", START + DAY, "auto sync completed")
    assert await ended(db, sync) == {"auto_end_check": "auto sync completed"}


async def test_a_pause_by_the_organizer_ends_what_waits_to_remind_and_to_pause(db: asyncpg.Connection) -> None:
    sync = await begin(db)
    await enqueue(db, "pause_check_48h", {"sync_id": str(sync)}, scheduled_at=START + DAY)
    await status(db, sync, "paused")
    assert set(await live(db, sync)) == {"auto_end_check"}
    assert (await one(db, sync))["paused_at"] == START


async def test_after_a_pause_the_organizer_s_own_reminder_is_what_counts(db: asyncpg.Connection) -> None:
    sync = await begin(db, ends=())
    await at(db, START + HOUR)
    await status(db, sync, "paused")
    await at(db, START + 10 * HOUR)
    await status(db, sync, "running", last_reminder_sent_at=START + 9 * HOUR)
    assert await live(db, sync) == {"pause_check_48h": START + 9 * HOUR + DAY}


async def test_a_sync_that_just_goes_on_is_reminded_once_more(db: asyncpg.Connection) -> None:
    sync = await begin(db, ends=())
    await status(db, sync, "paused")
    await at(db, START + 10 * HOUR)
    await status(db, sync, "running")
    assert await live(db, sync) == {"reminder_24h": START + 10 * HOUR + DAY}
    await status(db, sync, "paused", last_reminder_sent_at=None)
    await status(db, sync, "running", started_at=START + 5 * HOUR)
    assert await live(db, sync) == {"reminder_24h": START + 5 * HOUR + DAY}


async def test_the_demo_profile_is_one_setting(db: asyncpg.Connection) -> None:
    timing = await db.fetchrow("select * from auto_sync.use_profile('demo')")
    assert timing is not None
    assert (timing["reminder_after"], timing["pause_after"]) == (5 * MINUTE, 10 * MINUTE)
    assert await live(db, await begin(db, ends=())) == {"reminder_24h": START + 5 * MINUTE}
    await install(db)  # applied again, the files leave it as it is
    assert await db.fetchval("select profile from auto_sync.timings()") == "demo"
    await db.execute("select auto_sync.use_profile('production')")
    assert await live(db, await begin(db, ends=())) == {"reminder_24h": START + DAY}
    with pytest.raises(asyncpg.NoDataFoundError, match="no timings named"):
        await db.execute("select auto_sync.use_profile('staging')")
    assert await db.fetchval("select profile from auto_sync.timings()") == "production"


async def test_the_end_is_looked_at_when_the_first_option_is_over(db: asyncpg.Connection) -> None:
    sync = await begin(db, ends=(START + 3 * DAY, START + 2 * DAY))
    assert (await live(db, sync))["auto_end_check"] == START + 2 * DAY
    await db.execute(
        "update auto_sync.auto_sync_options set end_time = null, start_time = $1 where idx = 1", START + DAY
    )
    assert (await live(db, sync))["auto_end_check"] == START + DAY


async def test_a_check_that_sleeps_until_later_makes_room_for_an_option_that_ends_sooner(
    db: asyncpg.Connection,
) -> None:
    sync = await begin(db, ends=(START + 9 * DAY,))
    await db.execute("update worker.job_queue set started_at = $1 where job_type = 'auto_end_check'", START)
    await db.execute("update auto_sync.auto_sync_options set end_time = $1", START + 2 * DAY)
    assert (await live(db, sync))["auto_end_check"] == START + 2 * DAY
    assert await ended(db, sync) == {"auto_end_check": "an option ends sooner"}


async def test_mend_brings_what_a_running_sync_lacks_and_nothing_that_somebody_ended(db: asyncpg.Connection) -> None:
    lost, cancelled = await begin(db), await begin(db)
    await db.execute("delete from worker.job_queue where payload ->> 'sync_id' = $1", str(lost))
    await db.execute(
        "select worker.cancel(id, 'by hand') from worker.jobs where payload ->> 'sync_id' = $1", str(cancelled)
    )
    assert await db.fetchval("select auto_sync.mend()") == 3
    assert await live(db, lost) == {"reminder_24h": START + DAY, "auto_end_check": START + 30 * DAY}
    assert await live(db, cancelled) == {"pause_check_48h": START + 2 * DAY}  # nobody is reminded; it ends all the same
    assert await db.fetchval("select auto_sync.mend()") == 0


async def test_the_jobs_of_a_tenant_s_sync_are_the_tenant_s(db: asyncpg.Connection) -> None:
    """As whoever starts it acts for; the pause is then the same tenant's, and both end with the sync."""
    await db.execute("select set_config('request.jwt.claims', $1, false)", '{"tenant_id": "acme"}')
    sync = await begin(db)
    await db.execute("reset request.jwt.claims")
    await at(db, START + DAY)
    await db.execute("select * from auto_sync.begin_reminder($1, 0)", sync)
    assert {job["job_type"]: job["tenant_id"] for job in await jobs(db, sync)} == dict.fromkeys(TYPES, "acme")
    await status(db, sync, "completed")
    assert await live(db, sync) == {}


async def test_the_correlation_id_of_a_job_is_its_sync(db: asyncpg.Connection) -> None:
    sync = await begin(db)
    assert {job["correlation_id"] for job in await jobs(db, sync)} == {str(sync)}
