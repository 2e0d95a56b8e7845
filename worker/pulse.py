"""Whether this process is well: how late its loop wakes and who ran meanwhile, if claims go round, if it is ready."""

import asyncio
import time
from collections.abc import Callable

import structlog

from worker.metrics import Metrics
from worker.onset import Onset
from worker.poller import Poller

TICK = 0.25  # seconds between looks at the clock
IDLE_TICK = 1.0  # the first after work: what has ended is summed up once a second
STILL_TICK = 5.0  # while nothing is in hand: each look wakes the machine, and there is nobody to name
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

    Args:
        running: tells the job types that run.
        ended: those that ended since it was cleared, which is done here.
        beat: done after each look at the clock.
        begun: set when something came in hand while nothing was.
    """

    def __init__(
        self,
        metrics: Metrics,
        running: Callable[[], set[str]],
        ended: set[str],
        beat: Callable[[], None] = lambda: None,
        begun: Onset | None = None,
    ) -> None:
        self._begun = begun or Onset()
        self._metrics = metrics
        self._running = running
        self._ended = ended
        self._beat = beat

    async def run(self) -> None:
        """Look at the clock, for ever."""
        still = False
        while True:
            self._ended.clear()
            late = await (self._busy() if self._running() else self._idle(STILL_TICK if still else IDLE_TICK))
            self.note(max(late, 0.0))
            self._beat()
            still = not self._ended and not self._running()

    async def _busy(self) -> float:
        began = time.monotonic()
        await asyncio.sleep(TICK)
        return time.monotonic() - began - TICK

    async def _idle(self, seconds: float) -> float:
        began = time.monotonic()
        if await self._begun.within(seconds):
            return time.monotonic() - self._begun.at  # the job that woke us was first, and may have blocked at once
        return time.monotonic() - began - seconds

    def note(self, late: float) -> None:
        """The loop woke so many seconds late."""
        self._metrics.loop_lag.observe(late)
        if late >= BLOCKED:
            _log.warning("loop.blocked", seconds=round(late, 3), job_types=self.types())

    def types(self) -> list[str]:
        """Job types that run, or ran since the last look at the clock."""
        return sorted(self._running() | self._ended)
