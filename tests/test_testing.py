"""The bench for authors of handlers, and the example of its page."""

import asyncio
import re
import sys
import types
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tests.heart import write_config
from tests.support import ROOT
from worker import Completed, Context, Permanent, Skipped, Snoozed
from worker.outcome import Failed, Retried
from worker.testing import NotDue, bench

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
JOBS = """
[retry]
first = "10m"
max = "10m"
max_attempts = 2
[job.echo]
python = "tests.test_testing:echo"
unique_key = "{kind}"
[job.keyed]
python = "tests.test_testing:echo"
concurrency_key = "one"
[job.breaks]
python = "tests.test_testing:breaks"
[job.watched]
python = "tests.test_testing:breaks"
audit = true
[job.graph]
arguments = { n = "n" }
steps = { double = { sql = "double" } }
"""


async def echo(context: Context) -> object:
    if context.payload.get("snooze"):
        return Snoozed(3600)
    if context.payload.get("skip"):
        return Skipped("no_op")
    return context.payload


async def breaks(context: Context) -> None:
    if context.payload.get("for_good"):
        raise Permanent("no")
    raise ValueError("not today")


@pytest.fixture
async def config(tmp_path: Path, connection: asyncpg.Connection) -> Path:
    await connection.execute("create function double(n integer) returns integer language sql as 'select 2 * n'")
    return write_config(tmp_path, JOBS)


@pytest.fixture
def example() -> Iterator[types.ModuleType]:
    """The page's Python as a module that can be imported by its name."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = types.ModuleType("docs_example")
    sys.modules["docs_example"] = module
    exec(compile(code, "docs/testing.md", "exec"), module.__dict__)  # noqa: S102 - it is our own page
    yield module
    del sys.modules["docs_example"]


async def test_the_example_of_the_page(example: types.ModuleType, dsn: str, tmp_path: Path) -> None:
    await example.test_reminder(dsn, tmp_path)


def test_the_page_names_what_there_is() -> None:
    from worker.testing import Bench

    named = set(re.findall(r"`at\.(\w+)", PAGE))
    public = {name for name in vars(Bench) if not name.startswith("_")} | {"connection"}
    assert named == public


async def test_outcomes(dsn: str, config: Path) -> None:
    async with bench(dsn, config) as at:
        assert await at.run(await at.enqueue("echo", {"kind": 1})) == Completed({"kind": 1})
        assert await at.run(await at.enqueue("echo", {"kind": 2, "skip": True})) == Skipped("no_op")
        assert isinstance(await at.run(await at.enqueue("breaks", {"for_good": True})), Failed)
        graph = await at.enqueue("graph", {"n": 21})
        assert isinstance(await at.run(graph), Completed)
        found = await at.job(graph)
        assert (found["status"], found["steps"][0]["status"]) == ("completed", "completed")


async def test_a_retry_waits_for_its_time(dsn: str, config: Path) -> None:
    async with bench(dsn, config) as at:
        job = await at.enqueue("breaks")
        assert isinstance(await at.run(job), Retried)
        if (await at.job(job))["label"] == "retrying":  # full jitter may make it nothing
            with pytest.raises(NotDue, match=r"retry_backoff.*not today"):
                await at.run(job)
        await at.move_clock("11m")
        assert isinstance(await at.run(job), Failed)


async def test_claims_only_the_job_it_is_told(dsn: str, config: Path) -> None:
    async with bench(dsn, config) as at:
        first, second = await at.enqueue("keyed"), await at.enqueue("keyed")
        await at.run(second)
        assert [(await at.job(job))["status"] for job in (first, second)] == ["pending", "completed"]
        await at.run(first)
        with pytest.raises(NotDue, match="done"):
            await at.run(first)


async def test_the_clock_moves_stops_and_goes_on_in_the_end(
    dsn: str, config: Path, connection: asyncpg.Connection
) -> None:
    async with bench(dsn, config) as at:
        job = await at.enqueue("echo", {"kind": 1}, delay="3 hours", expires_at=datetime.now(UTC) + timedelta(hours=5))
        with pytest.raises(NotDue, match="scheduled_later"):
            await at.run(job)
        await at.move_clock("2h")
        assert await at.move_clock(timedelta(hours=2)) > datetime.now(UTC) + timedelta(hours=3, minutes=59)
        await at.run(job)
        noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
        assert await at.stop_clock(noon) == noon
        assert await connection.fetchval("select worker.now()") == noon
    assert await connection.fetchval("select count(*) from worker.clock") == 0
    assert await connection.fetchval("select count(*) from worker.process where stopped_at is null") == 0


async def test_arguments_are_those_of_enqueue(dsn: str, config: Path) -> None:
    async with bench(dsn, config) as at:
        first = await at.enqueue("echo", {"kind": 1}, tenant_id="t", priority=3)
        assert await at.enqueue("echo", {"kind": 1}, tenant_id="t") == first
        assert (await at.job(first))["priority"] == 3
        with pytest.raises(TypeError, match=r"worker\.enqueue has no prioriti"):
            await at.enqueue("echo", {"kind": 1}, prioriti=3)


async def test_not_in_production(dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "worker.toml"
    path.write_text('environment = "production"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="production"):
        async with bench(dsn, path):
            pass


async def test_http_jobs_are_really_sent(dsn: str, tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with bench(dsn, write_config(tmp_path, f'[job.call]\nhttp = "http://127.0.0.1:{port}/x"\n')) as at:
            assert isinstance(await at.run(await at.enqueue("call", {"a": 1})), Completed)
    assert heard[0].startswith(b"POST /x ")


async def test_an_audited_job_shows_each_of_its_transitions(dsn: str, config: Path) -> None:
    async with bench(dsn, config) as at:
        job = await at.enqueue("watched")
        await at.run(job)
        await at.move_clock("1h")
        await at.run(job)
        events = (await at.job(job))["events"]
    told = [(event["event"], event["detail"]["to"], event["detail"].get("attempt")) for event in events]
    assert told == [
        ("enqueued", "pending", None), ("claimed", "running", 1), ("retried", "pending", 1), ("claimed", "running", 2),
        ("failed", "failed", 2),
    ]  # fmt: skip
