"""How a process is asked to stop: in two stages, by signals or by a program."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


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
