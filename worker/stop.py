"""How a process is asked to stop: in two stages, by signals or by a program."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger()


class Stop:
    """Two stages: the first signal drains, the second hands back at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()

    def ask(self) -> None:
        """One more request to stop."""
        (self.hurry if self.asked.is_set() else self.asked).set()

    def on_signals(self) -> None:
        """Let SIGTERM and SIGINT ask."""
        loop = asyncio.get_running_loop()
        for wanted in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(wanted, self.ask)


async def first(work: Coroutine[Any, Any, Any], event: asyncio.Event) -> None:
    """Wait for whichever comes first; what raises, raises here."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


async def beside(work: Coroutine[Any, Any, None], side: Coroutine[Any, Any, None]) -> None:
    """Do `work` while `side` goes on; a `side` that ends by itself ends the work, loudly."""
    working, siding = asyncio.ensure_future(work), asyncio.ensure_future(side)
    try:
        await asyncio.wait({working, siding}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        else:
            siding.result()
            raise RuntimeError("a side duty of the process ended by itself")
    finally:
        for task in (working, siding):
            task.cancel()
        await asyncio.gather(working, siding, return_exceptions=True)


async def leave_behind(seconds: float = 1.0) -> None:
    """End the process here and now if a handler still ignores its cancellation; the loop would wait for it for ever.

    The last thing a program does: its jobs are handed back, and nothing that such a handler still does is accepted.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    pending = (await asyncio.wait(left, timeout=seconds))[1] if left else set()
    if pending:
        _log.error("service.left_behind", tasks=sorted(task.get_name() for task in pending))
        sys.stdout.flush()
        os._exit(0)
