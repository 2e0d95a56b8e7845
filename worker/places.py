"""Where the last look of each line ended: the next one begins there, and does not read again what is dead before it.

While somebody's transaction keeps an old snapshot, or until vacuum comes, each claimed row leaves an entry in the due
index that every later look would read. What comes in before a place (a retry, a row that says it was due long ago)
waits until looks begin from the beginning again: once a second, and whenever a batch is short.
"""

import time

SECONDS = 1.0


class Places:
    """What `worker.claim` answered last as `places`, for a second."""

    def __init__(self) -> None:
        self._since = float("-inf")
        self._known: str | None = None

    def after(self) -> tuple[float, str | None]:
        """Since when places are kept (monotonic seconds), and those to give to the look made now."""
        now = time.monotonic()
        if now - self._since >= SECONDS:
            self._since, self._known = now, None
        return self._since, self._known

    def reached(self, since: float, places: str | None) -> None:
        """What a look came to; one that began before the places were forgotten must not bring them back."""
        if since == self._since:
            self._known = places
