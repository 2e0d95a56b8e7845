"""The stream of changes: what it tells, what it costs, and that it keeps nobody waiting."""

import asyncio

import pytest

from tests.heart import becomes, enqueue
from tests.web.site import ALL, READ, site_config, standing
from worker.web import stream
from worker.web.stream import Changes, Stream

EVENTS = "/api/v1/events"


async def events(side, path=EVENTS):
    """Events of a stream, one after the other, until it ends."""
    async with side.client.stream("GET", path, headers={"Authorization": f"Bearer {READ}"}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                yield line.removeprefix("event: ")


@pytest.fixture
async def side(tmp_path, dsn):
    async with standing(site_config(tmp_path, dsn)) as found, asyncio.timeout(60):
        yield found


async def test_a_change_is_told(side, connection):
    told = events(side)
    assert await anext(told) == "changed"
    job = await enqueue(connection, "work")
    assert await anext(told) == "changed"
    await told.aclose()
    told = events(side, f"{EVENTS}?job={job}")
    assert {await anext(told), await anext(told)} == {"changed", "job"}
    await connection.execute("select worker.cancel($1)", job)
    assert {await anext(told), await anext(told)} == {"changed", "job"}
    await told.aclose()


async def test_everybody_hears_by_one_look_and_nobody_looks_for_nobody(side, connection):
    changes = side.web._site.changes
    told = [events(side) for _ in range(5)]
    assert [await anext(each) for each in told] == ["changed"] * 5
    await enqueue(connection, "work")
    assert [await anext(each) for each in told] == ["changed"] * 5
    asking = await connection.fetchval("select count(*) from pg_stat_activity where application_name = 'worker web'")
    assert asking == 1
    for each in told:
        await each.aclose()
    await becomes(changes._looking.done)


async def test_so_many_streams_and_no_more(side, monkeypatch):
    monkeypatch.setattr(stream, "STREAMS", 2)
    told = [events(side) for _ in range(2)]
    for each in told:
        await anext(each)
    refused = await side.get(EVENTS)
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
    for each in told:
        await each.aclose()
    await becomes(lambda: not side.web._site.changes.full)


async def test_an_open_stream_ends_in_order_when_the_daemon_stops(tmp_path, dsn):
    async with standing(site_config(tmp_path, dsn)) as side:
        told = events(side)
        assert await anext(told) == "changed"
        rest = asyncio.ensure_future(anext(told, "the end"))
        await asyncio.sleep(0)
        side.web._site.end_streams()  # the first thing of a stop
        async with asyncio.timeout(20):
            assert await rest == "the end"  # said by the server; a connection that breaks off would be an error


async def test_a_stream_ends_by_itself_so_that_its_client_is_asked_again_who_it_is(side, monkeypatch):
    monkeypatch.setattr(stream, "LIFE_SECONDS", 0.0)
    assert [event async for event in events(side)] == []


async def test_while_the_database_is_away_that_is_told(tmp_path):
    async with (
        standing(site_config(tmp_path, f"postgresql://postgres@/x?host={tmp_path}")) as side,
        asyncio.timeout(60),
    ):
        told = events(side)
        assert await anext(told) == "away"
        await told.aclose()


async def test_a_client_that_takes_nothing_is_left(monkeypatch):
    monkeypatch.setattr(stream, "SEND_SECONDS", 0.05)
    ended = asyncio.Event()

    async def lines():
        try:
            while True:
                yield b": x\n\n"
        finally:
            ended.set()

    async def send(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async with asyncio.timeout(20):
        await Stream(lines())({"type": "http"}, asyncio.Event().wait, send)
        await ended.wait()


async def test_a_silent_stream_says_that_it_is_there(monkeypatch):
    monkeypatch.setattr(stream, "SILENT_SECONDS", 0.05)

    async def look(jobs):
        return {"jobs": {}, "added": 1}

    told = Changes(look).follow()
    async with asyncio.timeout(20):
        said = [await anext(told) for _ in range(4)]
    await told.aclose()
    assert said[0] == b"retry: 2000\n\n"
    assert said[-1] == b": nothing new\n\n"


async def test_what_is_no_job_is_not_followed(side):
    for job in ("0", "-1", "x", str(2**70)):
        assert (await side.get(f"{EVENTS}?job={job}", ALL)).status_code == 422
