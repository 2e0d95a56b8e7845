"""When to look again: the plain form of the wake-up (docs/decisions/0004).

The bell is one row in the database. It goes on when a look finds nothing, stays on while little comes, and goes off
when much comes, for a ring makes the commits of the whole server queue up. After it went on one more look is made; then
looks follow shortly until every transaction that may not have seen the bell has ended. Polling stays the guarantee.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from worker.job_queue import Claimed, JobQueue

BUSY_PAUSE = 0.007  # between looks while the bell is off: at 500 jobs/s 0.50 s of CPU a thousand, 0.56 at 5 ms (0034)
BUSY_LOOKS = 3  # useful looks in BUSY_SPAN turn the bell off
BUSY_SPAN = 0.03  # a slower stream costs less by rings: one look a job, where looks each 7 ms make three
NAPS = (0.01, 0.02, 0.04, 0.05)
NAP_SECONDS = 5.0  # a transaction that is older than that is found by the poll
DEAF_POLL = 1.0  # without a tested listener
NEIGHBOUR = 0.05  # when the ring was for another process
SEEN_AHEAD = 1.0  # as far as two beats reach; what is due later is seen again
EARLY = 0.003  # a timer that fires early finds nothing and spins
VAIN_LOOKS = 10  # in VAIN_SPAN, after which rings are taken for forged: anybody may NOTIFY
VAIN_SPAN = 1.0
LULL = 0.015  # for how long after a useful look the bell stays off


class Bell:
    """Sleeps between two looks.

    Args:
        poll: seconds between looks when nothing happens, with a tested listener.
        hearing: whether a listener has passed its test.
    """

    def __init__(self, queue: JobQueue, poll: float, hearing: Callable[[], bool]) -> None:
        self._queue = queue
        self._poll = poll
        self._hearing = hearing
        self._woken = asyncio.Event()
        self._heard = False  # the next look is made because of a ring
        self._looked_for_a_ring = False
        self._vain: deque[float] = deque(maxlen=VAIN_LOOKS)
        self._later: asyncio.TimerHandle | None = None
        self._looked_at = float("-inf")
        self._useful_at = float("-inf")
        self._was_useful = False
        self._useful: deque[float] = deque(maxlen=BUSY_LOOKS)
        self._on = False
        self._need: int | None = None  # transactions below this may not have seen the bell
        self._naps = 0
        self._renew_at = 0.0
        self._nap_until = 0.0

    def ring(self) -> None:
        """Something here became possible: look now."""
        self._woken.set()

    def heard(self, for_me: bool) -> None:
        """Somebody rang: look now, or a little later when it is for another process, or often and for nothing."""
        if self._heard:
            return  # it is looked into already: of a flood many end here
        if for_me and not self._distrusts():
            self._look_in(self._looked_at + BUSY_PAUSE - time.monotonic())  # what comes in a burst is found together
        elif self._later is None:
            self._look_in(NEIGHBOUR * random.uniform(0.5, 1.5))

    def due(self, seconds: float) -> None:
        """The first pending row, as somebody else saw it, is due then: one that came without a ring is found so."""
        if seconds <= SEEN_AHEAD:
            asyncio.get_running_loop().call_later(max(seconds, 0.0) + EARLY, self.ring)

    def clear(self) -> None:
        """A look is about to be made; rings from now on count for the next one."""
        self._looked_for_a_ring, self._heard = self._heard, False
        self._looked_at = time.monotonic()
        self._woken.clear()

    async def rest(self, looked: Claimed) -> None:
        """Sleep until the next look is due."""
        # The look after a useful one is for the rings of the same burst, whose rows that one has found.
        if self._looked_for_a_ring and not looked.jobs and not self._was_useful:
            self._vain.append(time.monotonic())
        self._was_useful = bool(looked.jobs)
        if looked.jobs:
            self._useful_at = self._looked_at
        if not self._hearing():
            await self._wait(min(self._poll, DEAF_POLL, _soon(looked)))
        elif self._on:
            await self._rest_on(looked)
        elif self._looked_at - self._useful_at <= LULL:
            await self._pause()
        else:
            await self._turn_on()

    async def off(self) -> None:
        """Turn the bell off: the process is busy, or stops."""
        if self._on:
            self._on = False
            await self._queue.wake()

    async def _pause(self) -> None:
        await self._wait(self._looked_at + BUSY_PAUSE - time.monotonic())

    def _look_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._later is not None:
            if self._later.when() <= loop.time() + seconds:
                return
            self._later.cancel()
            self._later = None
        if seconds <= 0:
            self._look()
        else:
            self._later = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._later = None
        self._heard = True
        self._woken.set()

    def _distrusts(self) -> bool:
        return len(self._vain) == VAIN_LOOKS and time.monotonic() - self._vain[0] <= VAIN_SPAN

    async def _rest_on(self, looked: Claimed) -> None:
        if looked.jobs and self._flows():
            await self.off()
            return
        if self._need is None:
            self._need = looked.xmax
        if looked.xmin < self._need and time.monotonic() < self._nap_until:
            self._naps += 1
            await self._wait(NAPS[min(self._naps, len(NAPS)) - 1])
            return
        if time.monotonic() >= self._renew_at:
            await self._mark()
        await self._wait(min(self._poll * random.uniform(0.8, 1.2), _soon(looked)))

    def _flows(self) -> bool:
        now = time.monotonic()
        self._useful.append(now)
        return len(self._useful) == BUSY_LOOKS and now - self._useful[0] <= BUSY_SPAN

    async def _turn_on(self) -> None:
        # Committed before the look that follows at once: whoever inserts after that look sees the bell.
        await self._mark()
        self._on, self._need, self._naps = True, None, 0
        self._nap_until = time.monotonic() + NAP_SECONDS

    async def _mark(self) -> None:
        # The mark lives for six polls, and is renewed by the first rest after four: no wait outlasts it.
        await self._queue.sleep(self._poll)
        self._renew_at = time.monotonic() + 4 * self._poll

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.001)):
                await self._woken.wait()


def _soon(looked: Claimed) -> float:
    return float("inf") if looked.next_due is None else max(looked.next_due, 0.0) + EARLY
