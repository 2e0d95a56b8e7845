"""One drain: claims until a claim returns nothing and nothing runs, then says what is left and why."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import tenacity

from worker.database import is_transient
from worker.job_queue import Claimed, JobQueue
from worker.poller import Poller

PERSISTENCE = 30.0  # seconds for which a database that comes and goes is asked again

# What is left, in the order it is told. Those of UNDONE are why a drain is not all done; the rest is only listed.
REASONS: Mapping[str, str] = {
    "claimable": "due and could not be claimed: locked by somebody else",
    "retry": "to be tried again later",
    "snoozed": "snoozed until later",
    "rated": "to be started later, for the rate of their type",
    "scheduled": "scheduled for later",
    "running": "running in another process",
    "limited": "behind the limit of their type, which jobs of other processes fill",
    "parked": "behind a concurrency key that another process holds",
    "paused": "of a paused type",
    "disabled": "of a type that is off",
    "undeclared": "of a type that nobody declared",
    "elsewhere": "of a type that this configuration does not declare",
}
UNDONE = ("claimable", "retry", "snoozed", "rated")


@dataclass(frozen=True, slots=True)
class Report:
    """What a drain did and what it left.

    Attributes:
        ran: jobs by final status.
        left: jobs by reason.
    """

    ran: Mapping[str, int]
    left: Mapping[str, int]

    @property
    def all_done(self) -> bool:
        """False when a job that it ran failed, or one is left that it should have run."""
        return not self.ran.get("failed") and not any(self.left.get(reason) for reason in UNDONE)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"done": self.all_done, "ran": dict(self.ran), "left": dict(self.left)}

    def sentences(self) -> str:
        """For people: one line about what ran, one for each reason that something is left."""
        ran = ", ".join(f"{jobs} {status}" for status, jobs in self.ran.items())
        left = [f"left: {self.left[reason]} {why}" for reason, why in REASONS.items() if self.left.get(reason)]
        return "\n".join([f"ran: {ran or 'nothing'}", *(left or ["nothing is left"])])


class Drain:
    """The service's claiming, once.

    Args:
        patience: seconds to wait for retries, snoozes and starts at a rate.

    Attributes:
        report: what came of it, once `run` has returned.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.report: Report | None = None

    async def run(self, poller: Poller, queue: JobQueue) -> None:
        """Claim and run until nothing is left that a claim would get."""
        until, sure = time.monotonic() + self._patience, False
        while True:
            await self._exhaust(poller)
            # Healed rows and un-parked heads deserve another look, and so does what was committed meanwhile.
            if await queue.sweep() or await self._exhaust(poller):
                continue
            report, soon = await _remains(queue)
            if report.left.get("claimable") and not sure:  # due since the last look, or locked by somebody
                sure = True
                continue
            if soon is None or soon > until - time.monotonic():
                self.report = report
                return
            sure = False
            await asyncio.sleep(max(soon, 0.0) + 0.005)

    async def _exhaust(self, poller: Poller) -> bool:
        """Claim until a claim returns nothing and nothing runs; True when there was anything at all."""
        anything = False
        while True:
            looked = await _look(poller)
            anything = anything or bool(looked.jobs or looked.parked)
            if looked.jobs or looked.parked:  # a claim that only parked: others may stand behind what it parked
                continue
            if not poller.in_hand:
                return anything
            await poller.one_ended()


async def _remains(queue: JobQueue) -> tuple[Report, float | None]:
    """The report as it would be now, and the seconds until the next retry, snooze or start at a rate is due."""
    row = await queue.remains()
    assert row is not None
    return Report(orjson.loads(row["ran"]), orjson.loads(row["left_over"])), row["next_return"]


async def _look(poller: Poller) -> Claimed:
    """One claim into the free slots; repeated while the database comes and goes."""
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        stop=tenacity.stop_after_delay(PERSISTENCE),
        reraise=True,
    )
    return await retrying(_claim, poller)


async def _claim(poller: Poller) -> Claimed:
    return await poller.look(await poller.room())
