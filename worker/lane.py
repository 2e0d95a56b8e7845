"""How many jobs more may be claimed."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

LATELY = 0.5  # seconds; well under what a job may wait for its turn here


class Lane:
    """How many jobs more may be claimed: beyond `size` never more than finished lately, and at most `prefetch`."""

    def __init__(self, size: int, prefetch: int) -> None:
        self.size = size
        self._in_hand = 0
        self._asked = 0  # by claims on their way
        self._finished: deque[float] = deque(maxlen=prefetch)

    def room(self) -> int:
        return self._room(time.monotonic())

    @contextmanager
    def asking(self, jobs: int, then: asyncio.Event) -> Iterator[None]:
        """While a claim for so many is on its way, beside which another one may be made; its end may leave room."""
        self._asked += jobs
        try:
            yield
        finally:
            self._asked -= jobs
            then.set()

    def started(self) -> None:
        self._in_hand += 1

    def ended(self, ran: bool) -> bool:
        """One less is in hand; True where there was no room until now, so that what is due was not looked for."""
        now = time.monotonic()
        full = self._room(now) <= 0
        # What was handed back without its turn is no sign of pace: counted, it would be claimed again at once.
        self._in_hand -= 1
        if ran:
            self._finished.append(now)
        return full

    def _room(self, now: float) -> int:
        finished, past = self._finished, now - LATELY
        while finished and finished[0] <= past:
            finished.popleft()
        return self.size + len(finished) - self._in_hand - self._asked
