"""The listener: hears rings, proves that it hears, and comes back when its connection is lost."""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from worker.database import DATABASE_ERRORS, connect, register

TEST_EVERY = 60.0  # seconds; it also finds a connection that is only half there
TEST_SECONDS = 2.0

_log = structlog.get_logger()


class Listener:
    """LISTEN on a connection of its own that does nothing else; polling stays the guarantee.

    Args:
        url: a direct or session connection.
        me: the process that rings are addressed to.
        on_ring: called with True when a ring is for this process, with False when it is for another.
        ring: rings with a nonce from another connection, for the self-test: behind a transaction pooler LISTEN
            succeeds and hears nothing.
        on_test: called after each test with the seconds from ring to hearing, None when nothing was heard.

    Attributes:
        hearing: whether the last test was heard, on this very connection.
        tested: set after the first test.
    """

    def __init__(
        self,
        url: str,
        me: int,
        on_ring: Callable[[bool], None],
        ring: Callable[[str], Awaitable[None]],
        on_test: Callable[[float | None], None] = lambda seconds: None,
    ) -> None:
        self._url = url
        self._me = str(me)
        self._on_ring = on_ring
        self._ring = ring
        self._on_test = on_test
        self._heard: asyncio.Event = asyncio.Event()
        self._nonce = ""
        self.hearing = False
        self.tested = asyncio.Event()

    async def run(self) -> None:
        """Listen, for ever; reconnect with jittered backoff."""
        pause = 0.1
        while True:
            try:
                await self._listen()
                pause = 0.1
            except DATABASE_ERRORS as error:
                _log.info("listener.lost", error=type(error).__name__)
            self.hearing = False
            self._on_ring(True)  # what was missed meanwhile is found by looking
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 5.0)

    async def _listen(self) -> None:
        connection = await connect(self._url, "listen")
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
                _log.warning("listener.deaf", cure="set database.direct_url to a direct or session address")
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
