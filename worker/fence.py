"""When a process must stop its own jobs: no beat was confirmed for too long, whatever its connections do meanwhile."""

import asyncio
import time
from collections.abc import Callable

LEAST = 0.02
ASK_SECONDS = 0.5  # that a beat is given where we slept, and not the database

# CLOCK_BOOTTIME goes on while the machine sleeps; where it is missing, monotonic time is the next best.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds on a clock that counts a sleep of the machine, and that nobody sets."""
    return time.clock_gettime(_CLOCK)


class Fence:
    """Tells once when no beat was confirmed for `seconds`; each one puts it off, so that an idle loop is not woken.

    All but `age` belongs to the thread of the loop that beats.
    """

    def __init__(self, seconds: float, fenced: Callable[[], None]) -> None:
        self._seconds = seconds
        self._tell = fenced
        self._confirmed = self._due = now()
        self._fenced = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def age(self) -> float:
        """Seconds since the last confirmed beat was sent."""
        return now() - self._confirmed

    def begin(self) -> None:
        """Watch from now on, in the running loop."""
        self._look_in(self._seconds)

    def end(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def confirm(self, sent: float) -> bool:
        """A beat was confirmed; True when that ends a fence.

        Args:
            sent: when it was sent: until then the session was there for all to see.
        """
        fenced, self._fenced, self._confirmed = self._fenced, False, sent
        self._look_in(sent + self._seconds - now())
        return fenced

    def awake(self) -> None:
        """The loop turns. If the machine slept, which timers do not count, look soon."""
        if now() - self._due > ASK_SECONDS:
            self._look_in(ASK_SECONDS)

    def _look_in(self, seconds: float) -> None:
        self.end()
        self._due = now() + max(seconds, LEAST)
        self._timer = asyncio.get_running_loop().call_later(max(seconds, LEAST), self._look)

    def _look(self) -> None:
        if self.age <= self._seconds:
            self._look_in(self._seconds - self.age)
        elif now() - self._due > ASK_SECONDS:  # we slept: let the beat ask first
            self._look_in(ASK_SECONDS)
        elif not self._fenced:
            self._fenced = True
            self._tell()
