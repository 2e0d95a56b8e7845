"""What `run --once` claims with: one look, and what it brought to its end."""

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from worker.job_queue import JobQueue
    from worker.poller import Poller


class Once:
    """The service's claiming, for one claim; `ran` is jobs by final status once it has returned."""

    def __init__(self) -> None:
        self.ran: dict[str, int] | None = None

    async def run(self, poller: "Poller", queue: "JobQueue") -> None:
        """Claim into the free slots and wait for what came."""
        await poller.look(await poller.room())
        await poller.settled()
        row = await queue.remains()
        assert row is not None
        self.ran = orjson.loads(row["ran"])
