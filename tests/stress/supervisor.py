"""What starts daemons again that die: at once the first time, later and later while they die young."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.stress.place import Place

FIRST, MOST = 0.1, 2.0  # seconds before a restart
OLD = 5.0  # seconds after which a death says nothing about the next life


class Supervisor:
    """Keeps one daemon alive.

    Attributes:
        codes: exit codes of those that died.
        pauses: seconds waited before each restart.
        daemon: the one that lives, or died last.
    """

    def __init__(self, place: Place, config: Path, dsn: str | None = None) -> None:
        self._place, self._config, self._dsn = place, config, dsn
        self.codes: list[int] = []
        self.pauses: list[float] = []
        self.daemon = place.spawn(config, dsn)

    async def run(self) -> None:
        """For ever."""
        pause = FIRST
        while True:
            born = time.monotonic()
            while (code := self.daemon.process.poll()) is None:
                await asyncio.sleep(0.01)
            self.codes.append(code)
            pause = FIRST if time.monotonic() - born > OLD else min(pause * 2, MOST)
            self.pauses.append(pause)
            await asyncio.sleep(pause)
            self.daemon = self._place.spawn(self._config, self._dsn)


@asynccontextmanager
async def supervised(place: Place, config: Path, dsn: str | None = None) -> AsyncIterator[Supervisor]:
    """A daemon that comes again; afterwards it lives, and is not watched any more."""
    supervisor = Supervisor(place, config, dsn)
    running = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
