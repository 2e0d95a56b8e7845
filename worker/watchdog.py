"""The watchdog: ends a process that cannot heal itself, and keeps the one of systemd fed while all is well.

A claim loop that stands still is nobody's fault while the database is away, every slot is taken or nothing is to be
claimed. When it stands still although a fresh connection could claim, again and again for a minute, no waiting helps.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from worker.notify import notify, watchdog_seconds
from worker.stop import Stop

LOOK_EVERY = 5.0
BITE_SECONDS = 60.0  # of claims that stand still while a fresh connection could claim
LOOSE_SECONDS = 30.0  # beyond the grace, after which the process ends however it hangs
EXIT_CODE = 5

_log = structlog.get_logger()


class Watched(NamedTuple):
    """What is watched in one life of the process.

    Attributes:
        goes_round: whether claims are made, or there is a good reason that none is.
        could_claim: whether a fresh connection is let in and answers as a claim does.
        stands: what stands still, and where; for the log.
    """

    goes_round: Callable[[], bool]
    could_claim: Callable[[], Awaitable[bool]]
    stands: Callable[[], dict[str, Any]]


class Watchdog:
    """One for a process, over all its lives.

    Args:
        stop: is asked when it bites: what runs is given its grace and handed back.
        grace: seconds of a stop.

    Attributes:
        bitten: whether the process is to end with `EXIT_CODE`.
    """

    def __init__(self, stop: Stop, grace: float) -> None:
        self._stop = stop
        self._grace = grace
        self._watched: Watched | None = None
        self._since: float | None = None
        self._last: threading.Timer | None = None
        self.bitten = False

    def watch(self, watched: Watched) -> None:
        """Claims begin."""
        self._watched, self._since = watched, None

    def end(self) -> None:
        """Claims end: a stop, or another life."""
        self._watched = self._since = None

    @property
    def well(self) -> bool:
        """False while claims stand still and the database is not to blame."""
        return self._since is None

    async def run(self) -> None:
        """Look, and feed, for ever."""
        try:
            async with asyncio.TaskGroup() as duties:
                duties.create_task(self._guard())
                if seconds := watchdog_seconds():
                    duties.create_task(self._feed(seconds / 3))
        finally:
            if self._last is not None:
                self._last.cancel()

    async def _guard(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """Once: a probe is made only when claims stand still."""
        watched = self._watched
        if watched is None or watched.goes_round() or not await watched.could_claim():
            self._since = None
        elif watched is self._watched and not watched.goes_round():  # still, after the probe
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if now - self._since >= BITE_SECONDS:
                self._bite(watched)

    def _bite(self, watched: Watched) -> None:
        self.bitten = True
        _log.error("service.watchdog", **watched.stands())
        self.end()
        self._last = threading.Timer(self._grace + LOOSE_SECONDS, _end)
        self._last.daemon = True
        self._last.start()
        self._stop.ask()

    async def _feed(self, every: float) -> None:
        while True:
            if self.well:
                notify("WATCHDOG=1")
            await asyncio.sleep(every)


def place(task: "asyncio.Task[Any]") -> str:
    """Where a task waits: the innermost coroutine of this package that it is in."""
    found = "nowhere"
    waits: Any = task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None) or getattr(waits, "ag_frame", None)
        if frame is not None and f"{os.sep}worker{os.sep}" in frame.f_code.co_filename:
            found = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    return found


def _end() -> None:
    """The last resort, from a thread: nothing in the loop can be trusted to come to an end."""
    _log.error("service.watchdog", stands="the stop as well")
    sys.stdout.flush()
    os._exit(EXIT_CODE)
