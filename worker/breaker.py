"""A breaker for each endpoint (scheme, host, port): where nobody answers, calls are held back, and one goes to see.

It opens when calls in a row, and for some seconds, got no answer: no connection, no answer in time, or the 502, 503
and 504 of a proxy before a receiver that is gone. Any other answer, whatever it says, is somebody's, and closes it.
What it knows is this process's own, and forgotten with it.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from worker.errors import JobError
from worker.outbound import Answer, Request, TooSlow, Unreachable

FAILURES = 10  # in a row,
FAILING_SECONDS = 10.0  # and at least so long: a receiver that is started anew is left to the jobs' own retries
REST_SECONDS = 10.0  # until the first look; doubles with every look that finds nobody
MOST_REST_SECONDS = 60.0
NEARLY = 0.9  # of a call's timeout: the attempt's own, where it is the same, ends the call a breath before

_NOBODY = frozenset({502, 503, 504})
_PORTS = {"http": 80, "https": 443}


class Held(JobError):
    """The endpoint's breaker is open: nothing was sent. To be asked again in `delay` seconds."""

    def __init__(self, endpoint: str, delay: float) -> None:
        super().__init__(f"calls to {endpoint} are held back for {delay:.1f} s")
        self.delay = delay


class Sender(Protocol):
    """What makes an outgoing call."""

    async def send(self, request: Request) -> Answer:
        """Send it once and read the answer; raises a JobError when there is none."""


def endpoint(url: str) -> str:
    """What calls are held back together: scheme, host and port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or _PORTS.get(parts.scheme, 0)}"


class Breaker:
    """The state of one endpoint; every method is told the time."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = 0.0  # when the first call of those that failed in a row was begun
        self._rest = 0.0  # how long the rest is; 0 while closed
        self._until = 0.0  # when it ends
        self._looking = False  # a call is under way to see whether somebody is there

    @property
    def open(self) -> bool:
        return self._rest > 0

    def enter(self, now: float) -> bool:
        """May a call be made? After the rest the one who asks first goes to see, and `leave`s when it is back."""
        if not self.open:
            return True
        if self._looking or now < self._until:
            return False
        self._looking = True
        return True

    def leave(self) -> None:
        """The call that went to see is back, whatever it saw."""
        self._looking = False

    def wait(self, now: float) -> float:
        """Seconds after which to ask again; spread, so that a receiver that is back does not meet all at once."""
        return max(self._until - now, 0.0) + random.random() * self._rest

    def answered(self) -> bool:
        """Somebody is there. True when that is news."""
        was_open = self.open
        self._failures, self._rest = 0, 0.0
        return was_open

    def failed(self, began: float, now: float, looked: bool) -> bool:
        """Nobody answered a call. True when it opens by this; what was under way by then tells nothing new."""
        if self.open:
            if looked:
                self._rest = min(self._rest * 2, MOST_REST_SECONDS)
                self._until = now + self._rest
            return False
        self._since = min(self._since, began) if self._failures else began
        self._failures += 1
        if self._failures < FAILURES or now - self._since < FAILING_SECONDS:
            return False
        self._rest, self._until = REST_SECONDS, now + REST_SECONDS
        return True


class Breakers:
    """A sender that asks the breaker of the endpoint first.

    Args:
        tell: called with the endpoint and True when its breaker opens, False when it closes.
        clock: seconds that only go forward.
    """

    def __init__(
        self, sender: Sender, tell: Callable[[str, bool], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sender = sender
        self._tell = tell
        self._clock = clock
        self._breakers: dict[str, Breaker] = {}

    async def send(self, request: Request) -> Answer:
        """Send it once.

        Raises:
            Held: it was not sent, for nobody answers there.
            OutboundError: there is no answer.
        """
        where, began = endpoint(request.url), self._clock()
        breaker = self._breakers.setdefault(where, Breaker())
        looks = breaker.open
        if not breaker.enter(began):
            raise Held(where, breaker.wait(began))
        try:
            answer = await self._sender.send(request)
        except (Unreachable, TooSlow):
            self._note_failure(where, began, looks)
            raise
        except asyncio.CancelledError:
            if self._clock() - began >= request.timeout * NEARLY:
                self._note_failure(where, began, looks)
            raise
        finally:
            if looks:
                breaker.leave()
        if answer.status in _NOBODY:
            self._note_failure(where, began, looks)
        elif breaker.answered():
            self._tell(where, False)
        return answer

    def _note_failure(self, where: str, began: float, looked: bool) -> None:
        if self._breakers[where].failed(began, self._clock(), looked):
            self._tell(where, True)
