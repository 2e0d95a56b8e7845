"""LISTEN that is tested, and comes back."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.heart import becomes, heart, until
from worker import listener
from worker.listener import Listener

BACKEND = (
    "select a.pid from pg_stat_activity a join worker.backend b using (pid, backend_start) where b.duty = 'listen'"
)


@pytest.fixture
async def parts(dsn):
    async with heart(dsn) as opened:
        yield opened


@asynccontextmanager
async def listening(dsn, parts, ring=None):
    rings: list[bool] = []
    made = Listener(dsn, parts.queue.me, rings.append, ring or parts.queue.test_ring)
    task = asyncio.create_task(made.run())
    try:
        yield made, rings
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_hears_itself_before_it_is_trusted(dsn, parts):
    async with listening(dsn, parts) as (made, _):
        assert not made.hearing
        await becomes(lambda: made.hearing)


async def test_rings_are_for_this_process_or_for_another(dsn, parts, connection):
    async with listening(dsn, parts) as (made, rings):
        await becomes(lambda: made.hearing)
        await connection.execute("select pg_notify('worker', $1)", str(parts.queue.me))
        await connection.execute("select pg_notify('worker', '999999')")
        await becomes(lambda: len(rings) == 2)
        assert rings == [True, False]


async def test_a_strangers_test_is_no_ring(dsn, parts, connection):
    async with listening(dsn, parts) as (made, rings):
        await becomes(lambda: made.hearing)
        await connection.execute("select pg_notify('worker', 'test of somebody else'), pg_notify('worker', '')")
        await connection.execute("select pg_notify('worker', $1)", str(parts.queue.me))
        await becomes(lambda: True in rings)
        assert rings == [False, True]


async def test_it_comes_back_after_its_connection_is_lost(dsn, parts, connection):
    async with listening(dsn, parts) as (made, rings):
        await becomes(lambda: made.hearing)
        for _ in range(2):
            pid = await connection.fetchval(BACKEND)
            rings.clear()
            await connection.execute("select pg_terminate_backend($1)", pid)
            await becomes(lambda: rings)  # look: rings may have been missed
            await becomes(lambda: made.hearing)
            await until(connection, f"select ({BACKEND}) <> $1", pid)
        await connection.execute("select pg_notify('worker', $1)", str(parts.queue.me))
        await becomes(lambda: len(rings) >= 2)


async def test_a_deaf_one_is_not_trusted(dsn, parts, monkeypatch):
    """Behind a transaction pooler LISTEN succeeds, and nothing is ever heard."""
    monkeypatch.setattr(listener, "TEST_SECONDS", 0.05)
    monkeypatch.setattr(listener, "TEST_EVERY", 0.05)
    tested = asyncio.Event()

    async def lost(nonce: str) -> None:
        tested.set()

    async with listening(dsn, parts, lost) as (made, _):
        for _ in range(2):
            tested.clear()
            await asyncio.wait_for(tested.wait(), 20)
            assert not made.hearing


async def test_one_that_goes_deaf_connects_anew(dsn, parts, connection, monkeypatch):
    monkeypatch.setattr(listener, "TEST_SECONDS", 0.5)
    monkeypatch.setattr(listener, "TEST_EVERY", 0.05)
    lossy = False

    async def ring(nonce: str) -> None:
        nonlocal lossy
        if lossy:
            lossy = False
        else:
            await parts.queue.test_ring(nonce)

    async with listening(dsn, parts, ring) as (made, _):
        await becomes(lambda: made.hearing)
        pid = await connection.fetchval(BACKEND)
        lossy = True
        await until(connection, f"select ({BACKEND}) <> $1", pid)
        await becomes(lambda: made.hearing)
