"""One connection: its deadlines, its keepalives, and how long an attempt to get one may take."""

import asyncio
import socket
from pathlib import Path

import asyncpg
import pytest

from tests.heart import DEADLINE
from worker import connection as module
from worker import way
from worker.connection import Patience, backoff, connect, keep_alive


async def test_every_call_on_it_has_a_deadline(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTROL_SECONDS", 0.2)
    connection = await connect(dsn, "listen")
    with pytest.raises(TimeoutError):
        await connection.fetchval("select pg_sleep(600)")
    await connection.close(timeout=5)


async def test_a_server_that_takes_us_and_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "CONNECT_SECONDS", 0.2)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other one leaves
        writer.close()

    silent = await asyncio.start_unix_server(say_nothing, str(tmp_path / ".s.PGSQL.5432"))
    async with silent:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(f"postgresql://u@/d?host={tmp_path}", "beat"), DEADLINE * 10)


async def test_what_is_no_pooler_s_refusal_is_raised(dsn: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await connect(dsn, "cli", statement_timeout="soon")


def test_the_kernel_watches_a_network_connection() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            keep_alive(client)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5


def test_there_is_nothing_to_watch_on_a_unix_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keep_alive(ours)
        keep_alive(None)


async def test_an_attempt_that_was_given_too_little_is_given_more() -> None:
    patience, given = Patience(0.01, 0.08), []
    for _ in range(5):
        given.append(patience._seconds)
        with pytest.raises(TimeoutError):
            async with patience.attempt():
                await asyncio.sleep(600)
    assert given == [0.01, 0.02, 0.04, 0.08, 0.08]
    async with patience.attempt():
        pass
    assert patience._seconds == 0.01


async def test_what_else_goes_wrong_says_nothing_about_time() -> None:
    patience = Patience(1.0)
    with pytest.raises(ConnectionRefusedError):
        async with patience.attempt():
            raise ConnectionRefusedError
    assert patience._seconds == 1.0


def test_backoff_doubles_up_to_a_bound_and_is_jittered() -> None:
    for failures, most in ((1, 0.1), (2, 0.2), (3, 0.4), (5, 1.0), (1000, 1.0)):
        drawn = [backoff(failures, 1.0) for _ in range(200)]
        assert min(drawn) >= most / 2
        assert max(drawn) <= most
        assert len(set(drawn)) > 1
