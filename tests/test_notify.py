"""What systemd would hear, by a datagram socket of our own."""

import asyncio
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli
from tests.heart import becomes
from worker.notify import notify, told

SECONDS = 30.0


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listening socket whose name stands in NOTIFY_SOCKET."""
    name = f"@worker-{uuid.uuid4().hex}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0") if name.startswith("@") else name)
        listening.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def hear(listening: socket.socket) -> str:
    return listening.recv(1024).decode()


def silent(listening: socket.socket) -> bool:
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.recv(1024)
    return True


def test_one_datagram(heard: socket.socket) -> None:
    notify("READY=1")
    assert hear(heard) == "READY=1"
    assert silent(heard)


def test_nothing_without_a_socket(heard: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    notify("READY=1")
    assert silent(heard)


def test_a_socket_that_is_gone_costs_a_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    said = capfd.readouterr()
    assert "notify.failed" in said.out + said.err


async def test_the_stop_is_told_once_and_only_when_asked(heard: socket.socket) -> None:
    asked = asyncio.Event()
    ready = told(asked)
    ready(1)
    assert hear(heard) == "READY=1"
    await asyncio.sleep(0)
    asked.set()
    assert await asyncio.to_thread(hear, heard) == "STOPPING=1"
    assert silent(heard)


async def test_a_real_daemon(heard: socket.socket, tmp_path: Path, dsn: str) -> None:
    daemon = Cli(tmp_path, dsn).start("run")
    try:
        assert await asyncio.to_thread(hear, heard) == "READY=1"
        daemon.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(hear, heard) == "STOPPING=1"
        await becomes(lambda: daemon.poll() is not None)
    finally:
        daemon.kill()
        said = daemon.communicate()[1]
    assert daemon.returncode == 0, said
    assert silent(heard)


async def test_the_watchdog_of_systemd_is_fed(heard: socket.socket, tmp_path: Path, dsn: str) -> None:
    daemon = Cli(tmp_path, dsn).start("run", WATCHDOG_USEC="300000")
    try:
        said = [await asyncio.to_thread(hear, heard) for _ in range(5)]
        daemon.send_signal(signal.SIGTERM)
        await becomes(lambda: daemon.poll() is not None)
    finally:
        daemon.kill()
        daemon.communicate()
    assert set(said) == {"WATCHDOG=1", "READY=1"}
    assert daemon.returncode == 0


async def test_not_ready_while_the_database_is_away(heard: socket.socket, tmp_path: Path) -> None:
    daemon = Cli(tmp_path, "postgresql://u:p@127.0.0.1:1/x").start("run")
    assert daemon.stderr is not None
    try:
        assert "database.waiting" in await asyncio.to_thread(daemon.stderr.readline)
        daemon.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(hear, heard) == "STOPPING=1"
        await becomes(lambda: daemon.poll() is not None)
    finally:
        daemon.kill()
        daemon.communicate()
    assert daemon.returncode == 0
