"""What was seen a moment ago: sums over the queue are asked for once, however many people look."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from worker.desk import Desk, Row

FRESH_SECONDS = 0.5
SHARE = 10  # a question that took long is not repeated for so many times its length
KEPT = 50  # answers


class Seen:
    """Answers of the desk that may be a moment old; whoever asks meanwhile waits for the one question that is out."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._kept: OrderedDict[tuple[Any, ...], tuple[float, asyncio.Future[Any]]] = OrderedDict()

    async def overview(self) -> Row:
        """As of the desk."""
        found: Row = await self._once(("overview",), self._desk.overview)
        return found

    async def trends(self, since: float, step: float) -> list[Row]:
        """As of the desk."""
        found: list[Row] = await self._once(("trends", since, step), lambda: self._desk.trends(since, step))
        return found

    async def _once(self, name: tuple[Any, ...], ask: Callable[[], Awaitable[Any]]) -> Any:
        until, asked = self._kept.get(name, (0.0, None))
        if asked is None or (asked.done() and time.monotonic() >= until):
            asked = asyncio.ensure_future(self._asked(name, ask))
            self._kept[name] = (0.0, asked)
            self._kept.move_to_end(name)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return await asyncio.shield(asked)  # of those who wait one may go away

    async def _asked(self, name: tuple[Any, ...], ask: Callable[[], Awaitable[Any]]) -> Any:
        began = time.monotonic()
        found = await ask()
        took = time.monotonic() - began
        if name in self._kept:
            self._kept[name] = (time.monotonic() + max(FRESH_SECONDS, SHARE * took), self._kept[name][1])
        return found
