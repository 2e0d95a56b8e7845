"""The moment in which something comes in hand while nothing was."""

import asyncio
import time
from contextlib import suppress


class Onset:
    """Set by whoever takes work in hand; awaited by whoever rests until then.

    Attributes:
        at: when it was set, by the monotonic clock.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.at = float("-inf")

    def set(self) -> None:
        """Now."""
        self.at = time.monotonic()
        self._event.set()

    async def within(self, seconds: float) -> bool:
        """Wait for it; False when it did not come in time."""
        self._event.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        return self._event.is_set()
