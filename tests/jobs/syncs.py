"""What the tests of the sync manager share: the shipped SQL, the declaration of the page, a provider, and questions."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from tests import heart
from tests.heart import QUICK, write_config
from tests.support import ROOT
from worker import migrations
from worker.config import load
from worker.demo.provider import Provider
from worker.demo.receiver import Reply
from worker.outcome import Outcome, Snoozed
from worker.testing import Bench, bench

PAGE = (ROOT / "docs" / "systems" / "sync.md").read_text(encoding="utf-8")
DECLARED, CLOCKED, *_ = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
USER = "ann"
HANGS = Reply(manner="hang")
ASLEEP = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
until = partial(heart.until, seconds=60)  # daemons start, die and are missed
_CONNECT = "select sync.connect($1, 'seller', $2, tenant_id => $3)"


def declared(provider: Provider | None = None, settings: str = "", per: str = "1m", **changes: str) -> str:
    """What the page says to write into worker.toml, with this provider's address, more settings and other values.

    Args:
        per: the span in which 300 requests are allowed; in other spans, 3.
    """
    text = DECLARED.replace("https://api.seller.example", provider.origin if provider else "http://127.0.0.1:9")
    text = text.replace("settings = {", f"settings = {{ {settings}, " if settings else "settings = {", 1)
    if per != "1m":
        text = text.replace('limit = 300\nper = "1m"', f'limit = 3\nper = "{per}"')
    for old, new in changes.items():
        text, found = re.subn(rf"(?m)^{old} = .*$", f"{old} = {new}", text, count=1)
        assert found, old
    return text


def configure(folder: Path, provider: Provider | None = None, worker: str = QUICK, **changes: str) -> Path:
    """A worker.toml with the sync manager in it."""
    return write_config(folder, declared(provider, **changes), worker=worker)


async def install(connection: asyncpg.Connection, dsn: str, config: Path) -> None:
    """Apply the shipped files and declare the types, as `worker migrate` does."""
    await migrations.install(connection, "sync")
    declarations = load(config, {"DATABASE_URL": dsn}).declarations()
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(declarations).decode())


async def connect(connection: asyncpg.Connection, user: str = USER, token: str = "secret", tenant: Any = None) -> None:
    await connection.execute(_CONNECT, user, token, tenant)


async def start(connection: asyncpg.Connection, user: str = USER, **more: Any) -> int:
    named = "".join(f", {name} => ${number}" for number, name in enumerate(more, 2))
    sync: int = await connection.fetchval(f"select sync.start($1{named})", user, *more.values())
    return sync


async def status(connection: asyncpg.Connection, user: str = USER, sync: int | None = None) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(await connection.fetchval("select sync.status($1, $2)", user, sync))
    return told


async def results(connection: asyncpg.Connection, sync: int, user: str = USER) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(await connection.fetchval("select sync.results($1, $2)", user, sync))
    return told


async def one(connection: asyncpg.Connection, question: str, *arguments: Any) -> dict[str, Any]:
    """One row, as a dictionary."""
    row = await connection.fetchrow(question, *arguments)
    assert row is not None
    return dict(row)


async def prepare(
    connection: asyncpg.Connection, dsn: str, folder: Path, provider: Provider | None, **changes: str
) -> Path:
    """The sync manager installed and one account connected; its worker.toml."""
    config = configure(folder, provider, **changes)
    await install(connection, dsn, config)
    await connect(connection)
    return config


@asynccontextmanager
async def desk(
    connection: asyncpg.Connection, dsn: str, folder: Path, provider: Provider | None, **changes: str
) -> AsyncIterator[Bench]:
    """A bench with the sync manager installed and one account connected."""
    config = await prepare(connection, dsn, folder, provider, **{"settings": "detect_stay = 0", **changes})
    async with bench(dsn, config) as at:
        yield at


async def finish(at: Bench, sync: int) -> Outcome:
    """Run a sync that sleeps while it waits for its detection, then that, and the sync again."""
    came = await at.run(sync)
    detection = await at.connection.fetchval("select detect_job from sync.sync_runs where sync_id = $1", sync)
    if isinstance(came, Snoozed) and detection is not None:
        await at.run(detection)
        await at.move_clock("10s")
        came = await at.run(sync)
    return came


async def active(connection: asyncpg.Connection, user: str = USER) -> dict[str, Any]:
    return await one(connection, "select * from sync.active($1)", user)


async def end(db: asyncpg.Connection, sync: int, status: str = "completed", ago: str = "0") -> None:
    """What a daemon would have made of a sync."""
    await db.execute(
        "update worker.job_queue set status = $2, trouble = $2 in ('failed', 'cancelled'), queued = false,"
        " held_key = null, started_at = now() - $3::text::interval, finished_at = now() - $3::text::interval,"
        " errors = case when $2 = 'failed' then '[{\"message\": \"ProviderDown: gone\"}]'::jsonb end where id = $1",
        sync, status, ago,
    )  # fmt: skip


async def refusal(db: asyncpg.Connection, question: str, *arguments: Any) -> asyncpg.PostgresError:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await db.fetch(question, *arguments)
    return refused.value
