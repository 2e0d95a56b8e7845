"""Connections that a handler is lent: side by side they wait their turn, one within another not for ever."""

import asyncio

import pytest

from tests.heart import heart, job
from worker import context as module
from worker.context import Context
from worker.demo.receiver import Receiver, Reply
from worker.errors import JobError
from worker.outbound import Outbound, Request


@pytest.fixture
async def parts(dsn):
    async with heart(dsn, size=2) as made:
        yield made


async def nested(context: Context, depth: int) -> int:
    async with context.connection() as connection:
        pid: int = await connection.fetchval("select pg_backend_pid()")
        return len({pid, await nested(context, depth - 1)}) if depth > 1 else pid


async def test_as_many_within_each_other_as_there_are(parts):
    context = Context([job()], {}, parts.queue, parts.database.steps)
    assert await nested(context, 2) == 2


async def test_one_more_is_an_error_that_says_so_and_everything_is_given_back(parts, monkeypatch):
    monkeypatch.setattr(module, "NESTED_SECONDS", 0.2)
    context = Context([job()], {}, parts.queue, parts.database.steps)
    with pytest.raises(JobError, match=r"database\.steps came free in 0\.2 s; one is held already"):
        await nested(context, 3)
    assert await nested(context, 2) == 2


async def test_attempts_that_wait_for_each_other_let_go(parts, monkeypatch):
    monkeypatch.setattr(module, "NESTED_SECONDS", 0.2)
    contexts = [Context([job(id=n)], {}, parts.queue, parts.database.steps) for n in range(20)]
    came = await asyncio.gather(*(nested(context, 2) for context in contexts), return_exceptions=True)
    assert all(each == 2 or isinstance(each, JobError) for each in came)


async def test_side_by_side_they_wait_as_long_as_it_takes(parts, monkeypatch):
    monkeypatch.setattr(module, "NESTED_SECONDS", 0.01)
    context = Context([job()], {}, parts.queue, parts.database.steps)

    async def one() -> int:
        async with context.connection() as connection:
            return await connection.fetchval("select 1 from pg_sleep(0.05)")

    assert await asyncio.gather(*(one() for _ in range(10))) == [1] * 10


async def test_what_the_handler_itself_raises_stays_what_it_is(parts):
    context = Context([job()], {}, parts.queue, parts.database.steps)
    with pytest.raises(TimeoutError, match="its own"):
        async with context.connection():
            raise TimeoutError("its own")


async def test_a_handler_s_call_goes_out_by_the_one_way_there_is(parts):
    outbound = Outbound()
    context = Context([job()], {}, parts.queue, parts.database.steps, sender=outbound)
    async with Receiver() as receiver:
        receiver.plan(Reply(200, b"y" * 10))
        answer = await context.http(Request("POST", receiver.url, body=b"a=1", most=4))
        assert (answer.status, answer.body, answer.whole) == (200, b"yyyy", False)
    await outbound.close()


async def test_without_a_way_out_it_says_so(parts):
    context = Context([job()], {}, parts.queue, parts.database.steps)
    with pytest.raises(JobError, match="makes no calls"):
        await context.http(Request("GET", "http://127.0.0.1:1/"))
