"""A SQL function as a step of a Python handler: once for the job, and its answer kept."""

import asyncio
import importlib
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from tests.heart import Heart, becomes, effects, enqueue, heart, until
from tests.support import ROOT
from worker.context import Context
from worker.errors import CancelRequested, JobError, LostClaim
from worker.handlers import coroutine
from worker.job import Job

FUNCTIONS = """
create table fx (job_id bigint, step text);
create function noted(job_id bigint, what text, size int default 1) returns jsonb language sql as
  $$ insert into fx (job_id, step) values (job_id, what);
     select jsonb_build_object('what', what, 'long', repeat('x', size), 'calls', (select count(*) from fx)) $$;
create function silent(job_id bigint) returns void language sql as
  $$ insert into fx (job_id, step) values (job_id, 'silent') $$;
create function broken(job_id bigint) returns void language plpgsql as
  $$ begin insert into fx (job_id, step) values (job_id, 'broken'); raise exception 'no such page'; end $$;
create function asleep(job_id bigint) returns void language plpgsql as
  $$ begin insert into fx (job_id, step) values (job_id, 'asleep'); perform pg_sleep(600); end $$;
"""


@pytest.fixture
async def parts(connection: asyncpg.Connection, dsn: str):
    await connection.execute(FUNCTIONS)
    async with heart(dsn) as made:
        yield made


async def begun(parts: Heart, connection: asyncpg.Connection) -> tuple[Context, Job]:
    await enqueue(connection)
    job = await parts.one()
    return Context([job], {}, parts.queue, parts.database.steps), job


async def test_done_once_and_its_answer_kept(parts: Heart, connection: asyncpg.Connection) -> None:
    context, job = await begun(parts, connection)
    given = {"job_id": job.id, "what": "page"}
    first = await context.step("page_1", "noted", given)
    assert first == {"what": "page", "long": "x", "calls": 1}
    assert await context.step("page_1", "public.noted", given) == first
    assert (await context.step("page_2", "noted", given))["calls"] == 2
    assert await context.step("end", "silent", {"job_id": job.id}) is None
    assert await effects(connection) == {(job.id, "page"): 2, (job.id, "silent"): 1}
    shown = await connection.fetch("select name, status, attempt from worker.job_step order by name")
    assert [tuple(row) for row in shown] == [(name, "completed", 1) for name in ("end", "page_1", "page_2")]


async def test_an_answer_is_kept_whole(parts: Heart, connection: asyncpg.Connection) -> None:
    context, job = await begun(parts, connection)
    answer = await context.step("big", "noted", {"job_id": job.id, "what": "big", "size": 50_000})
    assert len(answer["long"]) == 50_000


@pytest.mark.parametrize(
    ("function", "given", "said"),
    [("broken", {}, "step s: P0001 no such page"), ("nowhere", {}, "function nowhere does not exist"),
     ("silent", {"page": 1}, "takes 1 arguments")],
)  # fmt: skip
async def test_what_fails_leaves_nothing_and_says_why(
    parts: Heart, connection: asyncpg.Connection, function: str, given: dict[str, Any], said: str
) -> None:
    context, job = await begun(parts, connection)
    with pytest.raises(JobError, match=said):
        await context.step("s", function, {"job_id": job.id, **given})
    assert await effects(connection) == {}


async def test_nothing_is_done_for_whom_the_job_is_not(parts: Heart, connection: asyncpg.Connection) -> None:
    context, job = await begun(parts, connection)
    await connection.execute("update worker.job_queue set claim = claim + 1000")
    with pytest.raises(LostClaim):
        await context.step("s", "silent", {"job_id": job.id})
    await connection.execute("update worker.job_queue set claim = claim - 1000")
    await connection.execute("select worker.cancel($1)", job.id)
    with pytest.raises(CancelRequested):
        await context.step("s", "silent", {"job_id": job.id})
    assert await effects(connection) == {}


async def test_the_connection_of_the_last_step_is_given_back(parts: Heart, connection: asyncpg.Connection) -> None:
    handler = coroutine._tidied(lambda context: context.step("s", "silent", {"job_id": context.job.id}))
    with structlog.testing.capture_logs() as lines:
        for _ in range(2 * 4):  # twice as often as there are connections
            context, _job = await begun(parts, connection)
            await handler(context)
    assert [line for line in lines if line["event"] == "handler.left_tasks"] == []
    await becomes(lambda: parts.database.steps.get_idle_size() == parts.database.steps.get_size())


async def test_the_end_of_the_attempt_ends_its_statement(parts: Heart, connection: asyncpg.Connection) -> None:
    context, job = await begun(parts, connection)
    task = asyncio.create_task(context.step("s", "asleep", {"job_id": job.id}))
    asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
    await until(connection, f"select ({asleep}) = 1")
    task.cancel()
    await becomes(task.done)
    assert await connection.fetchval(asleep) == 0
    assert await effects(connection) == {}


async def test_the_example_of_the_page(
    parts: Heart, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.execute(
        "create schema shop; create function shop.store_page(job bigint, rows jsonb) returns jsonb language sql as"
        " $$ insert into fx values (job, 'page'); select jsonb_build_object('rows', jsonb_array_length(rows)) $$"
    )
    page = (ROOT / "docs" / "steps.md").read_text(encoding="utf-8")
    (tmp_path / "page_of_steps.py").write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    example = importlib.import_module("page_of_steps")

    async def ask_for(context: Context, cursor: str | None) -> dict[str, Any]:
        return {"rows": [1, 2], "next": {None: "b", "b": "c"}.get(cursor)}

    monkeypatch.setattr(example, "ask_for", ask_for, raising=False)
    context, job = await begun(parts, connection)
    assert await example.fetch(context) == {"orders": 6}
    assert await example.fetch(context) == {"orders": 6}
    assert await effects(connection) == {(job.id, "page"): 3}
