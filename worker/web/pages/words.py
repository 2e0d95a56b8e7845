"""Values as a person reads them: spans, instants, counts, states. Pure."""

from datetime import UTC, datetime
from typing import Any

CAPPED = 5_000  # a count that stopped there, see worker.overview

# How a job is, in one word: what worker.jobs.label says, by the class that colours it.
TONES = {
    "running": "run", "completed": "good", "failed": "bad", "cancelled": "gone", "skipped": "gone",
    "waiting": "wait", "scheduled": "later", "retrying": "again", "snoozed": "later",
    "behind its key": "later", "behind its rate": "later",
}  # fmt: skip
MARKS = {"run": "▶", "good": "✓", "bad": "✗", "gone": "–", "wait": "●", "later": "◷", "again": "↻"}
OLD_WORDS = {"pending": "queued", "running": "processing", "completed": "completed", "failed": "failed"}


def span(seconds: float | None) -> str:
    """0.34 → 340 ms, 12.3 → 12.3 s, 200 → 3 min 20 s, 20000 → 5 h 33 min."""
    if seconds is None:
        return ""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms" if seconds >= 0.001 else "0 ms" if seconds == 0 else "< 1 ms"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, lower, name, small in ((86_400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= unit:
            rest = whole % unit // lower
            return f"{whole // unit} {name} {rest} {small}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def brief(seconds: float | None) -> str:
    """A span in one unit, for narrow columns: 3 min, 6 h, 9 d."""
    if seconds is None:
        return ""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return span(seconds) if abs(seconds) < 10 else f"{seconds:.0f} s"


def instant(text: str | None) -> datetime | None:
    """An instant as JSON of the database has it."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def at(text: str | None) -> str:
    """An instant to the second, in UTC."""
    when = instant(text)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else ""


def ago(text: str | None, now: datetime) -> str:
    """How long ago, or in how long."""
    when = instant(text)
    if when is None:
        return ""
    seconds = (now - when).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{brief(seconds)} ago" if seconds > 0 else f"in {brief(-seconds)}"


def count(value: float | None) -> str:
    """With thin spaces between thousands; one that stopped at its bound says so."""
    if value is None:
        return ""
    told = f"{value:,.0f}".replace(",", "\u202f")
    return f"{told}+" if value >= CAPPED and value % CAPPED == 0 else told


def tone(label: str) -> str:
    """The class of a job's label."""
    return TONES.get(label, "gone")


def mark(label: str) -> str:
    """Its sign, so that colour is not all there is."""
    return MARKS[tone(label)]


def old_word(status: str) -> str:
    """A status in the words of the statistics' button: queued, processing, completed, failed."""
    return OLD_WORDS.get(status, status)


def plural(number: float, one: str, many: str | None = None) -> str:
    """1 job, 3 jobs."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


FILTERS: dict[str, Any] = {
    "span": span, "brief": brief, "at": at, "ago": ago, "count": count, "tone": tone, "mark": mark,
    "old_word": old_word, "plural": plural,
}  # fmt: skip
