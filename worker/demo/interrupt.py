"""The end of a demo before its end."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def interruptible(story: Coroutine[Any, Any, T]) -> T:
    """A story that SIGTERM and Ctrl-C end early; it cleans up, and then KeyboardInterrupt is raised."""
    task = asyncio.current_task()
    assert task is not None
    asked: list[bool] = []

    def end() -> None:
        asked.append(True)
        task.cancel()

    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(wanted, end)
    try:
        told = await story
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if asked:  # what was under way had just ended, and took no notice
        raise KeyboardInterrupt
    return told
