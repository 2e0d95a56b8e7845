"""Who knocks when, while nobody lets us in."""

import asyncio
import ssl
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
import structlog

from worker import door as module
from worker.database import is_transient
from worker.door import AGAIN_SECONDS, Door, ShutOut, is_refusal


class Server:
    """What answers when somebody knocks, and when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says: Exception | None = ConnectionRefusedError()
        self.gate: asyncio.Event | None = None
        self.knocks, self.now = 0, 1000.0
        monkeypatch.setattr(module, "asyncpg", SimpleNamespace(connect=self.connect))
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    async def connect(self, **given: Any) -> str:
        self.knocks += 1
        if self.gate:
            await self.gate.wait()
        if self.says:
            raise self.says
        return "connection"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def refusal(sqlstate: str) -> Exception:
    error: Exception = asyncpg.PostgresError.new({"C": sqlstate, "M": "x", "S": "FATAL"})
    return error


async def test_nobody_knocks_again_at_once(server: Server) -> None:
    door = Door()
    with pytest.raises(ConnectionRefusedError):
        await door.connect()
    for _ in range(10):
        with pytest.raises(ShutOut) as told:
            await door.connect()
        assert is_transient(told.value)
    assert server.knocks == 1
    server.now += AGAIN_SECONDS
    server.says = None
    assert await door.connect() == "connection"
    assert await door.connect() == "connection"


async def test_a_minute_without_an_answer_costs_a_knock_a_second_at_most(server: Server) -> None:
    door = Door()
    for _ in range(600):  # ten calls a second
        server.now += 0.1
        with pytest.raises(ConnectionError):
            await door.connect()
    assert server.knocks <= 60


async def test_one_at_a_time_knocks_after_a_failure(server: Server) -> None:
    door = Door()
    with pytest.raises(ConnectionRefusedError):
        await door.connect()
    server.now += AGAIN_SECONDS
    server.gate, server.says = asyncio.Event(), None
    first = asyncio.create_task(door.connect())
    await asyncio.sleep(0)
    with pytest.raises(ShutOut):
        await door.connect()
    server.gate.set()
    assert await first == "connection"


async def test_they_all_go_in_while_it_is_open(server: Server) -> None:
    door = Door()
    server.gate, server.says = asyncio.Event(), None
    several = [asyncio.create_task(door.connect()) for _ in range(4)]
    await asyncio.sleep(0)
    assert server.knocks == 4
    server.gate.set()
    assert await asyncio.gather(*several) == ["connection"] * 4


async def test_a_knock_that_was_called_off_does_not_keep_the_others_out(server: Server) -> None:
    door = Door()
    with pytest.raises(ConnectionRefusedError):
        await door.connect()
    server.now += AGAIN_SECONDS
    server.gate = asyncio.Event()
    first = asyncio.create_task(door.connect())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    server.gate.set()
    server.says = None
    assert await door.connect() == "connection"


async def test_shut_it_is_not_knocked_at(server: Server) -> None:
    door, server.says = Door(), None
    door.shut = True
    with pytest.raises(ShutOut):
        await door.connect()
    assert server.knocks == 0
    door.shut = False
    assert await door.connect() == "connection"


@pytest.mark.parametrize(
    "said",
    [refusal("28P01"), refusal("28000"), refusal("3D000"), ssl.SSLCertVerificationError("expired"),
     ConnectionError("PostgreSQL server rejected SSL upgrade")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_a_refusal_passes_for_whom_was_let_in_before_and_is_told_once(server: Server, said: Exception) -> None:
    door, server.says = Door(), said
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            server.now += AGAIN_SECONDS
            with pytest.raises(ShutOut) as told:
                await door.connect()
            assert is_transient(told.value)
    assert [line["event"] for line in lines] == ["database.refused"]


def test_what_is_a_refusal() -> None:
    assert is_refusal(refusal("28P01"))
    assert not is_refusal(refusal("57P03"))
    assert not is_refusal(ConnectionRefusedError())
