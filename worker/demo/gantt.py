"""A job's steps as a chart of text: when each ran, how long, and what it waited for. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NARROWEST, WIDEST = 12, 40  # columns of a bar
_MARKS = {"completed": "✓", "failed": "✗", "running": "…", "waiting": "·"}


def chart(steps: Sequence[Mapping[str, Any]], needs: Mapping[str, Sequence[str]], width: int = WIDEST) -> Iterator[str]:
    """One line a step, in the order of their starts.

    Args:
        steps: as `worker.show_job` gives them.
        needs: by step name, what had to be done before it; may be empty when it is not known.
    """
    width = min(max(width, NARROWEST), WIDEST)
    longest = max((len(step["name"]) for step in steps), default=0)
    whole = max((step["began"] + step["seconds"] for step in steps if step["began"] is not None), default=0.0)
    for step in steps:
        after = f"  after {', '.join(needs[step['name']])}" if needs.get(step["name"]) else ""
        again = f"  attempt {step['attempt']}" if step["attempt"] > 1 else ""
        mark = _MARKS[step["status"]]
        yield f"  {mark} {step['name']:{longest}} |{_bar(step, whole, width)}| {_length(step):>8}{after}{again}"


def _bar(step: Mapping[str, Any], whole: float, width: int) -> str:
    if step["began"] is None or whole <= 0:
        return " " * width
    first: int = min(int(step["began"] / whole * width), width - 1)
    last: int = min(max(round((step["began"] + step["seconds"]) / whole * width), first + 1), width)
    return " " * first + "█" * (last - first) + " " * (width - last)


def _length(step: Mapping[str, Any]) -> str:
    seconds: float | None = step["seconds"]
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"
