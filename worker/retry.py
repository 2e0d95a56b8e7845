"""When to try again: attempt number → delay. Pure."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with full jitter.

    Attributes:
        max_attempts: attempts in all, the first included.
        first: seconds, the ceiling of the delay after the first failed attempt.
        factor: growth of the ceiling from one attempt to the next.
        max: seconds, the ceiling never grows beyond it.

    Full jitter (a delay drawn evenly between zero and the ceiling) spreads a crowd that failed together better
    than any other form of jitter: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    max_attempts: int = 5
    first: float = 2.0
    factor: float = 2.0
    max: float = 600.0

    def ceiling(self, attempt: int) -> float:
        """Longest delay, in seconds, after failed attempt number `attempt` (1, 2, …)."""
        try:
            grown = self.first * self.factor ** (max(attempt, 1) - 1)
        except OverflowError:
            return self.max
        return min(grown, self.max)

    def delay(self, attempt: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after failed attempt number `attempt`; `draw` gives a number in [0, 1)."""
        return self.ceiling(attempt) * draw()

    def exhausted(self, attempt: int) -> bool:
        """True when attempt number `attempt` was the last."""
        return attempt >= self.max_attempts
