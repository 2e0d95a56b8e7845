"""One answer for all who ask the same at once: however many look, the database is asked once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any

SECONDS = 1.0  # ages and counts of an answer are no older
SHARE = 5  # an answer that took long is good for so many times its length, a quick one hardly at all
MOST = 20  # answers that are kept

Ask = Callable[[], Awaitable[Any]]


class _Answer:
    def __init__(self, version: int, ask: Ask, keep: float) -> None:
        self._version = version
        self._keep = keep
        self._until = float("inf")
        self.asking = asyncio.ensure_future(self._asked(ask))

    async def _asked(self, ask: Ask) -> Any:
        began, until = time.monotonic(), 0.0
        try:
            found = await ask()
            now = time.monotonic()
            deserved = SHARE * (now - began)
            until = now + (max(self._keep, deserved) if self._keep else min(SECONDS, deserved))
        finally:
            self._until = until  # an error is nobody's but theirs who wait for it already
        return _frozen(found)

    def good(self, version: int) -> bool:
        """Whether it is as new as can be known, or on its way."""
        return (self._keep > 0 or self._version == version) and time.monotonic() <= self._until


class Shared:
    """Answers by their question.

    Args:
        version: another one whenever something is known to have changed; no older answer is given then.
    """

    def __init__(self, version: Callable[[], int]) -> None:
        self._version = version
        self._answers: dict[tuple[Any, ...], _Answer] = {}

    async def get(self, question: tuple[Any, ...], ask: Ask, keep: float = 0.0) -> Any:
        """The answer to a question, which nobody can change: others have the same one.

        Who goes away while it is awaited takes it from nobody.

        Args:
            keep: seconds that it is good for, whatever changes meanwhile, and longer if it took long; 0: until
                something changes, and no longer than it deserves.
        """
        version = self._version()
        found = self._answers.get(question)
        if found is None or not found.good(version):
            self._answers.pop(question, None)
            found = self._answers[question] = _Answer(version, ask, keep)
            while len(self._answers) > MOST:
                del self._answers[next(iter(self._answers))]
        return await asyncio.shield(found.asking)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(each) for name, each in value.items()})
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
