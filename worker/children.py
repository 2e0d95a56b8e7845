"""A bounded pool of child processes for calls that block; the end of the wait for a call is the end of its child.

concurrent.futures cannot: there a running call goes on after it is cancelled, and one child that dies fails all calls.
"""

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Collection
from contextvars import Context
from typing import Any

import structlog

from worker import child as program
from worker.child import LENGTH
from worker.errors import ChildDied, Interrupted
from worker.metrics import Metrics
from worker.packing import packed, unpacked

END_SECONDS = 1.0  # between SIGTERM and SIGKILL
GONE_SECONDS = 5.0  # that the kernel is given to end what it was told to kill

SHORT = 3  # characters: such a secret would be found in everything

_LOOK_SECONDS = 0.25  # between looks for dead ones
_WAIT_SECONDS = 0.004  # between looks for one that is about to be gone
_OURS = {
    "DATABASE_URL", "DATABASE_URL_FILE", "CREDENTIALS_DIRECTORY", "PGPASSWORD", "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS",
}  # fmt: skip

_log = structlog.get_logger()


class _Child:
    """One process, leader of a group of its own, and the socket to it; `end` is its burial."""

    def __init__(self, process: "subprocess.Popen[bytes]", reader: StreamReader, writer: StreamWriter) -> None:
        self.process = process
        self.pid = process.pid
        self.end: asyncio.Task[str] | None = None
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> bytes:
        self.send(request)
        await self._writer.drain()
        return await self._reader.readexactly(*LENGTH.unpack(await self._reader.readexactly(LENGTH.size)))

    def send(self, frame: bytes) -> None:
        self._writer.write(LENGTH.pack(len(frame)) + frame)

    @property
    def gone(self) -> bool:
        return self._reader.at_eof()

    def look(self) -> None:
        # What it forked may hold its socket open: then no end of the stream tells of its own.
        if self.end is None and self.process.poll() is not None:
            self._reader.feed_eof()

    def close(self) -> None:
        self._writer.close()


class Children:
    """At most so many children, each making one call at a time; started when they are needed.

    Args:
        most: children at once.
        secrets: a variable of the environment that holds one of them is not handed on.
    """

    def __init__(self, most: int, metrics: Metrics, secrets: Collection[str] = ()) -> None:
        self._metrics = metrics
        self._secrets = [secret for secret in secrets if len(secret) > SHORT]
        self._turns = asyncio.Semaphore(most)
        self._all: set[_Child] = set()
        self._idle: list[_Child] = []
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False
        self._show()

    async def call(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
        """What `function(*args, **named)` came to in a child; waits for its turn.

        Raises:
            TypeError: the function, an argument or the result cannot be handed over.
            ChildDied: the child ended in the midst of it.
            Exception: whatever the function raised.
        """
        request = packed(function, args, named)
        await self._turns.acquire()
        try:
            child = await self._free()
        except BaseException:
            self._turns.release()
            raise
        return unpacked(await self._asked(child, request))

    async def close(self) -> None:
        """End all children, whatever they do."""
        self._closed = True
        ends = [self._end(each, asked=True) for each in self._all]
        if ends:
            await asyncio.wait(ends, timeout=END_SECONDS + GONE_SECONDS)

    async def _asked(self, child: _Child, request: bytes) -> bytes:
        self._show()
        try:
            answer = await child.ask(request)
        except (EOFError, ConnectionError):
            ended = await self._given_up(child)
            raise ChildDied(f"child process {child.pid} {ended} in the midst of the call") from None
        except BaseException:
            # The verdict waits until it is gone: the next attempt must not meet it.
            await self._given_up(child, asked=True)
            raise
        self._idle.append(child)
        self._show()
        self._turns.release()
        return answer

    def _given_up(self, child: _Child, asked: bool = False) -> "asyncio.Future[str]":
        end = self._end(child, asked)
        end.add_done_callback(lambda _: self._turns.release())  # not before: they would be one too many
        return asyncio.shield(end)

    async def _free(self) -> _Child:
        if self._closed:
            raise Interrupted("the daemon is stopping")
        while self._idle:
            child = self._idle.pop()
            if not child.gone:
                return child
            await asyncio.shield(self._end(child))
        return await self._started()

    async def _started(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                reader, writer = await asyncio.open_unix_connection(sock=ours)
            except BaseException:
                ours.close()
                raise
            try:
                child = _Child(self._process(theirs), reader, writer)
            except BaseException:
                writer.close()
                raise
        self._all.add(child)
        if self._looking is None:
            self._look()
        child.send(pickle.dumps(sys.path))
        return child

    def _look(self) -> None:
        for each in self._all:
            each.look()
        for each in self._idle:
            if each.gone:
                self._end(each)
        again = asyncio.get_running_loop().call_later
        self._looking = again(_LOOK_SECONDS, self._look, context=Context()) if self._all else None

    def _process(self, channel: socket.socket) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-P", program.__file__, str(channel.fileno()), str(os.getpid())],
            pass_fds=[channel.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,  # standard output may be the result of a command
            env=self._environment(),
            start_new_session=True,  # Ctrl-C is not meant for it; and what it starts ends with it
        )

    def _environment(self) -> dict[str, str]:
        def is_theirs(name: str, value: str) -> bool:
            return name not in _OURS and not any(secret in value for secret in self._secrets)

        return {name: value for name, value in os.environ.items() if is_theirs(name, value)}

    def _end(self, child: _Child, asked: bool = False) -> "asyncio.Task[str]":
        if child.end is None:
            # In a context of its own: it is no task of the job that the child worked for.
            child.end = asyncio.create_task(self._bury(child, asked), context=Context())
        return child.end

    async def _bury(self, child: _Child, asked: bool) -> str:
        if asked:
            _signal(os.kill, child.pid, signal.SIGTERM)
            await _reaped(child.process, END_SECONDS)
        _signal(os.killpg, child.pid, signal.SIGKILL)  # with all that it started
        if not await _reaped(child.process, GONE_SECONDS):
            _log.error("child.will_not_end", pid=child.pid)
        child.close()
        self._all.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        self._show()
        ended = _ended(child.process.returncode)
        if not asked:
            self._metrics.child_deaths.inc()
            _log.warning("child.died", pid=child.pid, ended=ended)
        return ended

    def _show(self) -> None:
        self._metrics.children.labels("idle").set(len(self._idle))
        self._metrics.children.labels("busy").set(len(self._all) - len(self._idle))


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended by itself; macOS refuses for a zombie
        send(pid, number)


async def _reaped(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    # Asked again and again: its parent alone can wait for it, and must not block.
    for _ in range(int(seconds / _WAIT_SECONDS)):
        if process.poll() is not None:
            return True
        await asyncio.sleep(_WAIT_SECONDS)
    return process.poll() is not None


def _ended(code: int | None) -> str:
    if code is None:
        return "does not end"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}" + (" (short of memory?)" if name == "SIGKILL" else "")
