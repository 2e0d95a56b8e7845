"""What was seen a moment ago: sums over the queue are asked for once, however many look."""

from collections.abc import Mapping, Sequence
from typing import Any

from worker.desk import Desk
from worker.web.shared import Shared

FRESH_SECONDS = 0.5


class Seen:
    """Answers of the desk that may be a moment old, for programs; pages are to show what was just done."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._shared = Shared(lambda: 0)

    async def overview(self) -> Mapping[str, Any]:
        """As of the desk."""
        found: Mapping[str, Any] = await self._shared.get(("overview",), self._desk.overview, FRESH_SECONDS)
        return found

    async def trends(self, since: float, step: float) -> Sequence[Mapping[str, Any]]:
        """As of the desk."""
        question = ("trends", since, step)
        found: Sequence[Mapping[str, Any]] = await self._shared.get(
            question, lambda: self._desk.trends(since, step), FRESH_SECONDS
        )
        return found
