"""What the tests of the auto sync share: the shipped SQL, crews to be asked, and questions about what came of it."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from tests.heart import QUICK, declare
from tests.support import ROOT
from worker import migrations

PAGE = (ROOT / "docs" / "systems" / "auto-sync.md").read_text(encoding="utf-8")
DECLARED = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
TYPES = ("reminder_24h", "pause_check_48h", "auto_end_check")

# As the page declares them, but with a carrier that needs no account, and without long waits between tries.
JOBS = DECLARED.replace('sms = "twilio"', 'sms = "console"').replace('first = "30s", max = "30m"', 'first = "1ms"')
TWILIO = JOBS.replace('sms = "console"', 'sms = "twilio"')
CALM = QUICK


def number(n: int) -> str:
    """The phone number of the n-th invitee."""
    return f"+1415555{n:04}"


async def install(connection: asyncpg.Connection) -> None:
    """Apply the shipped files, and declare the types."""
    await migrations.install(connection, "auto_sync")
    unique = {"unique_key": "{sync_id}", "unique_while": "active"}
    await declare(connection, *({"name": name, **unique} for name in TYPES))


async def person(
    connection: asyncpg.Connection, name: str = "Olga", phone: str | None = "+14155559000", *, is_host: bool = False
) -> UUID:
    """A profile."""
    asked = "insert into auto_sync.profiles (name, phone, is_host) values ($1, $2, $3) returning id"
    made: UUID = await connection.fetchval(asked, name, phone, is_host)
    return made


async def crew(connection: asyncpg.Connection, organizer: UUID, phones: list[str | None]) -> tuple[UUID, list[UUID]]:
    """A crew of contacts with these numbers: its id, and theirs."""
    made = await connection.fetchval(
        "insert into auto_sync.crews (organizer_id, name) values ($1, 'crew') returning id", organizer
    )
    asked = "insert into auto_sync.contacts (owner_id, name, phone) values ($1, $2, $3) returning id"
    contacts = [await connection.fetchval(asked, organizer, f"Member {n}", phone) for n, phone in enumerate(phones)]
    await connection.execute("insert into auto_sync.crew_members select $1, unnest($2::uuid[])", made, contacts)
    return made, contacts


async def begin(
    connection: asyncpg.Connection,
    members: int = 3,
    *,
    organizer: UUID | None = None,
    phones: list[str | None] | None = None,
    started_at: datetime | None = START,
    status: str = "running",
    ends: tuple[datetime, ...] = (START + 30 * DAY,),
) -> UUID:
    """A sync of a crew of its own, with options that end when `ends` says."""
    organizer = organizer or await person(connection)
    members_of, _ = await crew(connection, organizer, phones or [number(n) for n in range(1, members + 1)])
    sync: UUID = await connection.fetchval(
        "insert into auto_sync.auto_syncs (organizer_id, crew_id, event_name, status, started_at)"
        " values ($1, $2, 'Boat trip', $3, $4) returning id",
        organizer, members_of, status, started_at,
    )  # fmt: skip
    for idx, end in enumerate(ends, 1):
        await connection.execute(
            "insert into auto_sync.auto_sync_options (auto_sync_id, idx, start_time, end_time) values ($1, $2, $3, $4)",
            sync, idx, end - HOUR, end,
        )  # fmt: skip
    return sync


async def begun(connection: asyncpg.Connection, members: int = 3, organizer: UUID | None = None) -> UUID:
    """One that began 25 hours ago by the real clock, so that its reminder is due."""
    now = await connection.fetchval("select now()")
    return await begin(connection, members, organizer=organizer, started_at=now - DAY - HOUR, ends=(now + DAY,))


async def answer(connection: asyncpg.Connection, sync: UUID, phone: str, said: str = "available") -> None:
    """A member of the crew answers."""
    await connection.execute(
        "insert into auto_sync.auto_sync_responses (auto_sync_id, contact_id, response_type)"
        " select $1, m.contact_id, $3 from auto_sync.auto_syncs s join auto_sync.crew_members m using (crew_id)"
        " join auto_sync.contacts c on c.id = m.contact_id where s.id = $1 and c.phone = $2",
        sync, phone, said,
    )  # fmt: skip


async def jobs(connection: asyncpg.Connection, sync: UUID, job_type: str | None = None) -> list[asyncpg.Record]:
    """The jobs of a sync, oldest first."""
    return await connection.fetch(
        "select * from worker.jobs where payload ->> 'sync_id' = $1::text and job_type = coalesce($2, job_type)"
        " order by id",
        str(sync), job_type,
    )  # fmt: skip


async def live(connection: asyncpg.Connection, sync: UUID) -> dict[str, datetime]:
    """When the jobs of a sync that are not at their end are due."""
    return {each["job_type"]: each["scheduled_at"] for each in await jobs(connection, sync) if not each["finished_at"]}


async def one(connection: asyncpg.Connection, sync: UUID) -> asyncpg.Record:
    """The row of a sync."""
    row = await connection.fetchrow("select * from auto_sync.auto_syncs where id = $1", sync)
    assert row is not None
    return row


async def outbox(connection: asyncpg.Connection, sync: UUID, kind: str = "reminder") -> dict[str | None, str]:
    """Status by number."""
    rows = await connection.fetch(
        "select phone, status from auto_sync.outbox where auto_sync_id = $1 and kind = $2 order by id", sync, kind
    )
    return {row["phone"]: row["status"] for row in rows}


async def texts(connection: asyncpg.Connection, sync: UUID, kind: str) -> list[str]:
    """What was written down of this kind."""
    rows = await connection.fetch(
        "select body from auto_sync.outbox where auto_sync_id = $1 and kind = $2 order by id", sync, kind
    )
    return [row["body"] for row in rows]
