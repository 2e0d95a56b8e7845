"""What a demo promises, and the one error when it does not happen."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from worker.errors import WorkerError

LOOK_SECONDS = 0.05


class DemoFailed(WorkerError):
    """Something that the demo promises did not happen; the message says what, and what was seen instead."""


def must(held: bool, otherwise: str) -> None:
    """Raises DemoFailed unless it is so."""
    if not held:
        raise DemoFailed(otherwise)


async def until(true: Callable[[], Awaitable[bool]], otherwise: str, seconds: float = 60.0) -> None:
    """Wait for what nobody announces; raises DemoFailed when it does not come in time."""
    end = time.monotonic() + seconds
    while not await true():
        must(time.monotonic() < end, otherwise)
        await asyncio.sleep(LOOK_SECONDS)
