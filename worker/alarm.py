"""One timer for many deadlines: set for each job it would cost more than most jobs do."""

import asyncio
import time
from collections.abc import Callable


class Alarm:
    """Rings at the earliest time it was asked for, and asks then when it is to ring next.

    Args:
        rang: called with the time (monotonic seconds); answers with the next one, infinity for none.
    """

    def __init__(self, rang: Callable[[float], float]) -> None:
        self._rang = rang
        self._at = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def at(self, when: float) -> None:
        """Ring at that time at the latest."""
        if when >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = when
        # By the difference: a loop's own clock may be another one than time.monotonic.
        self._timer = asyncio.get_running_loop().call_later(max(when - time.monotonic(), 0.0), self._ring)

    def _ring(self) -> None:
        self._at, self._timer = float("inf"), None
        self.at(self._rang(time.monotonic()))
