"""Whether this process is well: how late its loop wakes and who ran meanwhile, if claims go round, if it is ready."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from worker.metrics import Metrics
from worker.poller import Poller

TICK = 0.25  # seconds between looks at the clock
BLOCKED = 0.5  # seconds late that are worth a line

_log = structlog.get_logger()


class Readiness:
    """What /readyz says: nothing is watched yet, or any more, or all that is watched is well. Asks nobody."""

    def __init__(self) -> None:
        self._checks: tuple[Callable[[], bool], ...] = ()

    def watch(self, *checks: Callable[[], bool]) -> None:
        """Ready from now on, while all of these say so."""
        self._checks = checks

    def end(self) -> None:
        """Not ready any more: the process drains, or begins anew under another id."""
        self._checks = ()

    @property
    def ready(self) -> bool:
        """Whether claims go round, the schema fits and the database answers."""
        return bool(self._checks) and all(check() for check in self._checks)


class Rounds:
    """Whether claims go round: a look lately, or no room to look for. `note` is called between the questions."""

    def __init__(self, poller: Poller, concurrency: int, seconds: float) -> None:
        self._poller = poller
        self._concurrency = concurrency
        self._seconds = seconds
        self._full_at = float("-inf")

    def note(self) -> None:
        """Write down that every slot is taken, so that the first free one does not look like an old claim."""
        if self._poller.in_hand >= self._concurrency:
            self._full_at = time.monotonic()

    def lately(self) -> bool:
        """True while claims go round."""
        self.note()
        return time.monotonic() - max(self._poller.looked_at, self._full_at) <= self._seconds

    def turning(self) -> bool:
        """True while the loop goes round, though the server may refuse each claim: that is not the loop's fault."""
        return self.lately() or time.monotonic() - self._poller.refused_at <= self._seconds


class Pulse:
    """Measures the loop's lag, and names the job types that may have caused it: one that ran and did not give way.

    Attributes:
        beat: done after each look at the clock.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.beat: Callable[[], None] = lambda: None
        self._running: Counter[str] = Counter()
        self._ended: set[str] = set()

    def watched(self, job_type: str, handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The handler, with its runs written down."""

        async def run(*arguments: Any) -> Any:
            self._running[job_type] += 1
            try:
                return await handler(*arguments)
            finally:
                self._running[job_type] -= 1
                self._ended.add(job_type)

        return run

    async def run(self) -> None:
        """Look at the clock, for ever."""
        while True:
            self._ended.clear()
            began = time.monotonic()
            await asyncio.sleep(TICK)
            self.note(max(time.monotonic() - began - TICK, 0.0))
            self.beat()

    def note(self, late: float) -> None:
        """The loop woke so many seconds late."""
        self._metrics.loop_lag.observe(late)
        if late >= BLOCKED:
            _log.warning("loop.blocked", seconds=round(late, 3), job_types=self.types())

    def types(self) -> list[str]:
        """Job types that run, or ran since the last look at the clock."""
        return sorted({name for name, running in self._running.items() if running > 0} | self._ended)
