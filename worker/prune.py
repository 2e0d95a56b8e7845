"""Finished jobs deleted when they are older than `worker.keep` says; a duty of upkeep."""

from typing import TYPE_CHECKING

from worker.job_queue import JobQueue

if TYPE_CHECKING:
    from worker.config.models import Keep

PRUNE_SECONDS = 600.0  # between rounds


async def prune(queue: JobQueue, keep: "Keep") -> int:
    """One round over all pages, each its own transaction; answers with how many jobs went."""
    spans = {
        "completed": keep.completed, "skipped": keep.skipped, "failed": keep.failed, "cancelled": keep.cancelled,
    }  # fmt: skip
    page = await queue.prune(spans, 0)
    gone = page.gone
    while page.more:
        page = await queue.prune(spans, page.last)
        gone += page.gone
    return gone
