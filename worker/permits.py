"""Permits of the rates that all daemons share: waited for in place, for a while."""

import asyncio
import time
from collections.abc import Mapping

from worker.errors import NoPermit
from worker.job_queue import JobQueue

PATIENCE = 30.0  # seconds that an attempt waits in place


class Permits:
    """Hands out permits.

    Args:
        rates: by name so many permits in so many seconds.
    """

    def __init__(self, queue: JobQueue, rates: Mapping[str, tuple[int, float]]) -> None:
        self._queue = queue
        self._rates = rates

    async def draw(self, name: str, until: float) -> None:
        """Return with a permit.

        Args:
            until: monotonic second at which the attempt ends.

        Raises:
            ValueError: no rate has this name.
            NoPermit: none will be there in time.
        """
        if name not in self._rates:
            known = ", ".join(sorted(self._rates)) or "none"
            raise ValueError(f"permit: worker.toml has no [rate.{name}]; known are {known}")
        until = min(until, time.monotonic() + PATIENCE)
        back = False
        while wait := await self._queue.permit(name, self._rates[name], back, max(until - time.monotonic(), 0.0)):
            if time.monotonic() + wait > until:
                raise NoPermit(name, wait)
            await asyncio.sleep(wait)
            back = True
