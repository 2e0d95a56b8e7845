"""Never in the way: the web side has few connections, waits for nothing long, and slow readers hold none."""

import asyncio
import signal

import asyncpg
import httpx2
import pytest

from tests.heart import until
from tests.processes import fleet
from tests.support import free_port
from tests.web.site import ALL, READ, WRITE, site_config, standing
from worker import guests
from worker.web import gate

WEB = "select count(*) from pg_stat_activity where application_name = 'worker web'"
BUSY = WEB + " and state <> 'idle'"


@pytest.fixture
async def side(tmp_path, dsn):
    async with standing(site_config(tmp_path, dsn)) as found, asyncio.timeout(60):
        yield found


async def test_however_many_ask_there_are_three_connections(side, connection):
    answers = await asyncio.gather(*(side.get("/api/v1/jobs", READ) for _ in range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert await connection.fetchval(WEB) <= guests.CONNECTIONS


async def test_a_table_that_is_locked_keeps_nobody_waiting(side, connection, monkeypatch):
    monkeypatch.setattr(guests, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(guests, "TURN_SECONDS", 0.3)
    async with connection.transaction():
        await connection.execute("lock table worker.job_queue in access exclusive mode")
        answers = await asyncio.gather(*(side.get("/api/v1/jobs", READ) for _ in range(20)))
        assert {(each.status_code, each.json()["code"]) for each in answers} == {(503, "unavailable")}
        assert all(each.headers["retry-after"] for each in answers)
        assert (await side.get("/healthz", None)).status_code == 200
    assert (await side.get("/api/v1/jobs", READ)).status_code == 200


async def test_who_reads_slowly_holds_no_connection(side, connection):
    await connection.execute("insert into worker.job_queue (job_type) select 'work' from generate_series(1, 200)")
    writers = []
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", side.port)
        head = f"GET /api/v1/jobs?limit=200 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {READ}\r\n\r\n"
        writer.write(head.encode())
        writers.append(writer)
    try:
        assert (await side.get("/api/v1/jobs", READ)).status_code == 200
        await until(connection, f"select ({BUSY}) = 0")  # all are answered, and nobody has read a byte
    finally:
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def test_a_body_that_does_not_come_is_not_waited_for(side, monkeypatch):
    monkeypatch.setattr(gate, "REQUEST_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    head = (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {WRITE}\r\nContent-Type: application/json\r\n"
    )
    writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    said = await reader.readuntil(b"}")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"too_slow"' in said
    writer.close()
    await writer.wait_closed()


async def test_sums_are_asked_for_once_however_many_look(side, connection, monkeypatch):
    asked = 0
    desk = side.web._site.desk
    overview = desk.overview

    async def counted():
        nonlocal asked
        asked += 1
        return await overview()

    monkeypatch.setattr(desk, "overview", counted)
    answers = await asyncio.gather(*(side.get("/api/v1/types", READ) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert asked < 30


async def test_a_server_that_was_restarted_is_found_again(side, dsn, connection):
    assert (await side.get("/api/v1/jobs", READ)).status_code == 200
    other = await asyncpg.connect(dsn)
    await other.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'worker web'")
    await other.close()
    codes = [(await side.get("/api/v1/jobs", READ)).status_code for _ in range(4)]
    assert codes[-1] == 200


async def test_what_it_does_is_a_transaction_in_the_name_of_who_asked(dsn, connection):
    desk = guests.Guests(dsn)
    (row,) = await desk.act("web:ann", "select current_setting('worker.actor'), current_setting('statement_timeout')")
    assert tuple(row) == ("web:ann", "5s")
    (row,) = await desk.ask("select coalesce(current_setting('worker.actor', true), '')")
    assert row[0] == ""
    desk.close()


async def test_a_daemon_runs_what_the_api_was_given_and_stops_with_a_stream_open(tmp_path, dsn, connection):
    port = free_port()
    config = site_config(
        tmp_path, dsn, jobs='[job.echo]\npython = "tests.sample_jobs:echo"\n', listen=f"127.0.0.1:{port}"
    )
    with fleet(tmp_path, dsn) as daemons:
        daemon = daemons.start(config.path)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client:
            client.headers["Authorization"] = f"Bearer {ALL}"
            job = (await client.post("/api/v1/jobs", json={"job_type": "echo", "payload": {"a": 1}})).json()["id"]
            await until(connection, "select status = 'completed' from worker.job_queue where id = $1", job)
            told = (await client.get(f"/api/v1/jobs/{job}")).json()
            assert (told["status"], told["explain"]["code"]) == ("completed", "done")
            assert (await client.get("/api/v1/stats")).json()["daemons"][0]["state"] == "alive"
            async with client.stream("GET", "/api/v1/events") as stream:
                lines = stream.aiter_lines()
                await anext(lines)
                daemon.send(signal.SIGTERM)
                async for _ in lines:
                    pass
        assert daemon.ends() == 0
        assert "Traceback" not in daemon.said()
        assert ALL not in daemon.said()
