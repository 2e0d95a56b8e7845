"""A bulk retry or cancel, as far as one request goes; for the API and for pages."""

import asyncio
import time

from worker.desk import Desk, Row

WORK_SECONDS = 5.0  # of one request; who asks goes on with the next
PAGE = 500
REFUSALS = 100


async def worked(queue: Desk, who: str, bulk: int) -> Row:
    """What one request does of a bulk: `bulk`, `done`, `refused`, `refusals`, and whether there is `more`.

    Pages, until there are no more or the time of one request is over; never all of them in one transaction.
    """
    until = time.monotonic() + WORK_SECONDS
    told: Row = {"dry_run": False, "bulk": bulk, "done": 0, "refused": 0, "refusals": [], "more": True}
    while told["more"] and time.monotonic() < until:
        page = await queue.bulk_page(who, bulk, PAGE)
        told["done"] += page["done"]
        told["refused"] += page["refused"]
        told["refusals"] = (told["refusals"] + page["refusals"])[:REFUSALS]
        told["more"] = page["more"]
        await asyncio.sleep(0)  # jobs first
    return told
