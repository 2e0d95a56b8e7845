"""The shipped stats job with its webhook switched on: a receiver, a configuration, clubs, daemons; chess platforms."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.heart import QUICK
from tests.jobs.stats_database import install
from tests.jobs.webhook import KEY, loaded
from tests.processes import Fleet, fleet
from tests.support import ROOT
from worker.config import Config
from worker.demo import tables
from worker.demo.club import Club, generate
from worker.demo.daemon import with_webhook
from worker.demo.platforms import Platforms
from worker.demo.receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(KEY) as serving:
        yield serving


@pytest.fixture
async def platforms() -> AsyncIterator[Platforms]:
    async with Platforms() as serving:
        yield serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The shipped file with the webhook switched on, and without long waits."""
    text = with_webhook((ROOT / "worker.toml").read_text(encoding="utf-8"))
    for slow, quick in (
        ('poll = "5s"', 'poll = "1s"'),
        ('first = "2s"', 'first = "1ms"'),
        ('first = "1s", max = "1m"', 'first = "20ms", max = "50ms"'),
    ):
        assert slow in text
        text = text.replace(slow, quick)
    file = tmp_path / "worker.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def config(path: Path, dsn: str, receiver: Receiver) -> Config:
    return loaded(path, dsn, receiver)


@pytest.fixture
def daemons(config: Config, dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Daemons as processes of their own, which know the receiver and soon miss a dead one."""
    monkeypatch.setenv("APP_URL", receiver.origin)
    monkeypatch.setenv("INTERNAL_API_KEY", KEY)
    text = config.path.read_text(encoding="utf-8")
    text = re.sub(r"(?s)\[worker\].*?\n\n", f"[worker]\n{QUICK}\n\n", text, count=1)
    text = text.replace('cron = "0 2 * * *"', 'cron = "@yearly"')  # at two in the morning it is as at any other time
    config.path.write_text(text, encoding="utf-8")
    with fleet(config.path.parent, dsn) as started:
        yield started


@pytest.fixture
async def clubs(connection: asyncpg.Connection, config: Config) -> Club:
    """Three small clubs whose last matches are still to be played."""
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(config.declarations()).decode())
    await install(connection)
    made = generate(7, players=24, matches=40, tenants=3, seasons=2)
    await tables.load(connection, made)
    await install(connection, trigger=True)
    return made
