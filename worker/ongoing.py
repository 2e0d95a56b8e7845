"""What an attempt asks of the database while it runs: steps, progress, permits, the end of a statement."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from worker.errors import LostClaim
from worker.job import Job
from worker.verdict import encode


class OpenStep(NamedTuple):
    """A step at the start of an attempt: whether it is done, and its median seconds in earlier jobs."""

    name: str
    done: bool
    seconds: float | None


class Ongoing:
    """The part of the queue's calls that belong to one running attempt."""

    _control: "asyncpg.Pool[asyncpg.Record]"
    me: int

    async def begin_steps(self, job: Job, names: Sequence[str]) -> list[OpenStep]:
        """Open the timeline of an attempt.

        Raises:
            asyncpg.PostgresError: WK001 or WK009, see `worker.check_claim`.
        """
        rows = await self._control.fetch("select * from worker.begin_steps($1, $2, $3)", job.id, job.claim, list(names))
        return [OpenStep(**row) for row in rows]

    async def open_step(self, job: Job, step: str) -> asyncpg.Record:
        """Open one step: whether it is `done`, and the JSON text of its `result`; raises as `begin_steps` does."""
        (row,) = await self._control.fetch("select * from worker.open_step($1, $2, $3)", job.id, job.claim, step)
        return row

    async def step_began(self, job: Job, step: str, seconds: float) -> None:
        """Show a step as running for so long; for eyes only."""
        await self._control.execute("select worker.step_began($1, $2, $3, $4)", job.id, job.claim, step, seconds)

    async def step_failed(self, job: Job, step: str, text: str, seconds: float) -> bool:
        """Record a step's failure after so long; False when the claim is lost."""
        failed = "select worker.step_failed($1, $2, $3, $4, $5)"
        return bool(await self._control.fetchval(failed, job.id, job.claim, step, text, seconds))

    async def progress(self, job: Job, phase: str | None, progress: Any) -> None:
        """Write phase and progress of a running job.

        Raises:
            LostClaim: somebody else owns the job now.
        """
        written = await self._control.fetchval(
            "select worker.progress($1, $2, $3, $4::jsonb)", job.id, job.claim, phase, encode(progress)
        )
        if not written:
            raise LostClaim(f"claim {job.claim} of job {job.id} is not current")

    async def permit(self, name: str, rate: tuple[int, float], back: bool, patience: float) -> float:
        """Draw a permit of a rate (so many in so many seconds): 0.0, or the seconds until one is there.

        Args:
            back: whoever asks has waited for as long as it was told before.
            patience: seconds; whoever would wait longer gets no place in the line.
        """
        asked = "select worker.permit($1, $2, $3, $4, $5)"
        return float(await self._control.fetchval(asked, name, *rate, back, patience))

    async def stop_backend(self, pid: int, backend_start: datetime | None, hard: bool) -> bool:
        """Cancel the statement of a connection, or (hard) end the connection; False when there was nothing to stop."""
        return bool(
            await self._control.fetchval("select worker.stop_backend($1, $2, $3)", pid, backend_start, hard, timeout=5)
        )
