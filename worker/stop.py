"""How a process is asked to stop: in two stages, by signals or by a program."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")

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
        for wanted in SIGNALS:
            loop.add_signal_handler(wanted, self.ask)

    @staticmethod
    def no_more() -> None:
        """The process ends by itself from here: one more signal must not become its exit code."""
        loop = asyncio.get_running_loop()
        for wanted in SIGNALS:
            loop.remove_signal_handler(wanted)
            signal.signal(wanted, signal.SIG_IGN)


async def first(work: Coroutine[Any, Any, T], event: asyncio.Event) -> T | None:
    """Wait for whichever comes first; what raises, raises here. Answers with what the work came to, if it did."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
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


def leave_behind(seconds: float = 1.0, code: int = 0) -> None:
    """End the process within so many seconds, whatever handlers left behind; Python would wait for ever for a task that
    ignores its cancellation, and for a thread.

    The last thing a program does: its jobs are handed back, and nothing that such a handler still does is accepted.
    """
    last = threading.Timer(seconds, _end, (asyncio.get_running_loop(), code))
    last.daemon = True
    last.start()


def _end(loop: asyncio.AbstractEventLoop, code: int) -> None:
    tasks = sorted(task.get_name() for task in asyncio.all_tasks(loop))
    main = threading.main_thread()
    threads = sorted(each.name for each in threading.enumerate() if not each.daemon and each is not main)
    _log.error("service.left_behind", tasks=tasks, threads=threads)
    sys.stdout.flush()
    os._exit(code)
