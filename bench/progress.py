"""What a run says while it runs, to standard error."""

import sys
import time
from collections.abc import Awaitable, Callable


def say(text: str) -> None:
    """One line, at once."""
    print(text, file=sys.stderr, flush=True)


async def repeated(name: str, runs: int, once: Callable[[], Awaitable[dict[str, float]]]) -> list[dict[str, float]]:
    """What each run gave; each is said as it ends."""
    told = []
    for n in range(1, runs + 1):
        began = time.monotonic()
        told.append(await once())
        say(f"  {name}, run {n} of {runs}: {time.monotonic() - began:.1f} s")
    return told
