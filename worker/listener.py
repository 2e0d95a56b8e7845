"""The listener: hears rings, proves that it hears, and comes back when its connection is lost."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal

import structlog

from worker.connection import backoff, connect, register
from worker.database import DATABASE_ERRORS
from worker.way import Way, as_way

AGAIN_SECONDS = 5.0  # most, between attempts to connect
TEST_EVERY = 60.0  # seconds; it also finds a connection that is only half there
TEST_SECONDS = 2.0

_CURE = "set database.direct_url to a direct or session address; until then jobs start at the next poll"

_log = structlog.get_logger()


class Listener:
    """LISTEN on a connection of its own that does nothing else; polling stays the guarantee.

    Args:
        way: past any pooler where there is such a way; behind one in transaction mode nobody listens.
        me: the process that rings are addressed to.
        on_ring: called with True when a ring is for this process, with False when it is for another.
        ring: rings with a nonce from another connection, for the self-test.
        on_test: called after each test with the seconds from ring to hearing, None when nothing was heard.

    Attributes:
        hearing: whether the last test was heard, on this very connection.
        tested: set after the first test, or when there will be none.
    """

    def __init__(
        self,
        way: Way | str,
        me: int,
        on_ring: Callable[[bool], None],
        ring: Callable[[str], Awaitable[None]],
        on_test: Callable[[float | None], None] = lambda seconds: None,
    ) -> None:
        self._way = as_way(way)
        self._me = str(me)
        self._on_ring = on_ring
        self._ring = ring
        self._on_test = on_test
        self._heard: asyncio.Event = asyncio.Event()
        self._nonce = ""
        self.hearing = False
        self.tested = asyncio.Event()

    @property
    def state(self) -> Literal["refused", "untested", "heard", "deaf"]:
        """What the last test came to; refused where listening would be in vain, and a trace on strangers' sessions."""
        if not self._way.keeps:
            return "refused"
        return "heard" if self.hearing else "deaf" if self.tested.is_set() else "untested"

    async def run(self) -> None:
        """Listen, for ever; reconnect with jittered backoff."""
        if self.state == "refused":
            _log.warning("listener.refused", reason="a transaction pooler is on the way", cure=_CURE)
            self.tested.set()
            return
        failures = 0
        while True:
            try:
                failures += 1
                await self._listen()
            except DATABASE_ERRORS as error:
                _log.info("listener.lost", error=type(error).__name__)
            if self.hearing:
                failures = 0
            self.hearing = False
            self._on_ring(True)  # what was missed meanwhile is found by looking
            await asyncio.sleep(backoff(failures, AGAIN_SECONDS))

    async def _listen(self) -> None:
        connection = await connect(self._way, "listen")
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        try:
            await register(connection, int(self._me), "listen")
            await connection.add_listener("worker", self._on_notify)
            await self._keep_testing(closed)
        finally:
            with suppress(*DATABASE_ERRORS):
                await connection.close(timeout=1)

    async def _keep_testing(self, closed: asyncio.Event) -> None:
        while not closed.is_set():
            seconds = await self._test()
            heard = seconds is not None
            self._on_test(seconds)
            if self.hearing and not heard:
                raise TimeoutError("a listener that heard before hears nothing")
            if not heard:
                _log.warning("listener.deaf", cure=_CURE)
            self.hearing = heard
            self.tested.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(TEST_EVERY):
                    await closed.wait()

    async def _test(self) -> float | None:
        self._heard.clear()
        self._nonce = f"test {secrets.token_hex(8)}"
        began = time.monotonic()
        await self._ring(self._nonce.removeprefix("test "))
        with suppress(TimeoutError):
            async with asyncio.timeout(TEST_SECONDS):
                await self._heard.wait()
        return time.monotonic() - began if self._heard.is_set() else None

    def _on_notify(self, _: Any, __: int, ___: str, payload: object) -> None:
        if str(payload).startswith("test "):
            if payload == self._nonce:
                self._heard.set()
            return
        self._on_ring(payload == self._me)
