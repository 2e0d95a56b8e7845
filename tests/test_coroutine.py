"""Python handlers: what they start and leave behind ends with them, and is told."""

import asyncio
import contextvars
import gc
from types import SimpleNamespace

import pytest
import structlog

from tests.heart import heart, job
from worker.database import borrowed
from worker.handlers.coroutine import _tidied, note_tasks


async def ran(function, context=None):
    """Run a handler in a task of its own, as the executor does; answers with the lines about tasks it left."""
    note_tasks()
    given = context or SimpleNamespace(job=job(id=7, job_type="leaky"))
    with structlog.testing.capture_logs() as lines:
        await asyncio.gather(asyncio.create_task(_tidied(function)(given)), return_exceptions=True)
    return [line for line in lines if line["event"] == "handler.left_tasks"]


@pytest.fixture
def endless():
    """A coroutine that never ends by itself, and the tasks that run it."""
    tasks = []

    async def background():
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    background.tasks = tasks
    yield background
    for task in tasks:
        task.cancel()


async def ended(tasks):
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    return [task.cancelled() for task in tasks]


async def test_tasks_left_running_are_cancelled_and_told(endless):
    async def handler(context):
        for _ in range(3):
            asyncio.create_task(endless())  # noqa: RUF006 - an author's mistake, staged
        await asyncio.sleep(0)
        return "done"

    (line,) = await ran(handler)
    assert (line["log_level"], line["tasks"], line["job_id"], line["job_type"]) == ("warning", 3, 7, "leaky")
    assert line["names"] == [endless.__qualname__]
    assert await ended(endless.tasks) == [True] * 3


async def test_those_of_a_handler_that_fails_or_is_cancelled_too(endless):
    async def fails(context):
        await asyncio.gather(endless(), raises())  # the first error ends the gather, and nobody the others

    async def raises():
        await asyncio.sleep(0)
        raise ValueError

    async def cancelled(context):
        asyncio.create_task(endless())  # noqa: RUF006
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    for handler in (fails, cancelled):
        (line,) = await ran(handler)
        assert line["tasks"] == 1
    assert await ended(endless.tasks) == [True] * 2


async def test_a_task_of_a_task_is_found(endless):
    async def handler(context):
        async def spawns():
            asyncio.create_task(endless())  # noqa: RUF006

        await asyncio.create_task(spawns())
        await asyncio.sleep(0)

    (line,) = await ran(handler)
    assert line["tasks"] == 1
    assert await ended(endless.tasks) == [True]


async def test_nothing_is_said_of_a_handler_that_tidies_up(endless):
    async def handler(context):
        task = asyncio.create_task(endless())
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        task.cancel()
        await asyncio.wait({task})

    assert await ran(handler) == []


async def test_what_is_meant_to_stay_has_a_context_of_its_own(endless):
    async def handler(context):
        asyncio.create_task(endless(), context=contextvars.Context())  # noqa: RUF006
        await asyncio.sleep(0)

    assert await ran(handler) == []
    assert not endless.tasks[0].done()


async def test_tasks_of_somebody_else_are_left_alone(endless):
    others = asyncio.create_task(endless())

    async def handler(context):
        await asyncio.sleep(0)

    assert await ran(handler) == []
    assert not others.done()


async def test_the_drivers_own_tasks_are_let_finish(dsn):
    async with heart(dsn, size=1) as parts:

        async def handler(context):
            async with borrowed(parts.database.steps) as lent, asyncio.timeout(0.01):
                await lent.execute("select pg_sleep(600)")

        assert await ran(handler) == []
        async with borrowed(parts.database.steps, 20) as lent:
            assert await lent.fetchval("select 1") == 1


async def test_a_handler_of_many_tasks_keeps_none_that_ended():
    noted = []

    async def handler(context):
        async def brief():
            noted.append(asyncio.current_task().get_coro().__qualname__)

        for _ in range(100):
            await asyncio.create_task(brief())
        await asyncio.sleep(0)
        gc.collect()
        context.alive = sum(task.get_coro().__qualname__.endswith("brief") for task in gc.get_objects()
                            if isinstance(task, asyncio.Task))  # fmt: skip

    context = SimpleNamespace(job=job())
    await ran(handler, context)
    assert (len(noted), context.alive) == (100, 0)
