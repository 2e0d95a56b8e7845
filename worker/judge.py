"""Judging the others by what one unbroken session has seen, so that an outage of the database makes nobody dead."""

from collections.abc import Mapping
from typing import Any

YOUNG_SECONDS = 5.0  # a session younger than this says nothing about lapsed leases
YOUNG_POOLED_SECONDS = 20.0  # a pooler may wait 15 s before it tries a server again that was away


class Judge:
    """Remembers since when which process was seen missing or lapsed.

    Args:
        missing: seconds without a break after which it is gone.
        pooled: whether our own session leads through a pooler, which may hide a break.
    """

    def __init__(self, missing: float, *, pooled: bool = False) -> None:
        self._seconds = missing
        self._young = YOUNG_POOLED_SECONDS if pooled else YOUNG_SECONDS
        self._missing: dict[int, float] = {}
        self._lapsed: dict[int, float] = {}
        self._began = self._looked = 0.0

    def begin(self, now: float) -> None:
        """A new session: what the last one saw counts no more."""
        self._began = now
        self._forget()

    def gone(self, suspects: Mapping[int, Mapping[str, Any]], now: float) -> list[int]:
        """Of the processes that are `missing` or `lapsed` at this look, those that have been it for long enough."""
        if now - self._looked > self._seconds:
            self._forget()  # we slept, and so may they have: nobody saw what was in between
        self._looked = now
        for seen in (self._missing, self._lapsed):
            for back in seen.keys() - suspects.keys():
                del seen[back]
        return [process for process, row in suspects.items() if self._gone(process, row, now)]

    def _forget(self) -> None:
        self._missing.clear()
        self._lapsed.clear()

    def _gone(self, process: int, row: Mapping[str, Any], now: float) -> bool:
        missing = _since(self._missing, process, row["missing"], now)
        # The server's clock may jump; whoever lives then renews its lease at its next beat, which is waited for.
        lapsed = _since(self._lapsed, process, row["lapsed"], now)
        return missing >= self._seconds or (lapsed >= self._seconds and now - self._began >= self._young)


def _since(seen: dict[int, float], process: int, true: bool, now: float) -> float:
    """Seconds for which something was seen of a process without a break."""
    if not true:
        seen.pop(process, None)
        return 0.0
    return now - seen.setdefault(process, now)
