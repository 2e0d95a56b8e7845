"""Durations as people write them: "500ms", "30s", "5m", "24h", "7d" ↔ seconds. Pure."""

import re

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SHAPE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_LONGEST = 3650 * _UNITS["d"]  # instants are computed from these; the tables refuse those after the year 9000


def parse(text: object) -> float:
    """Seconds in a duration such as "30s".

    Raises:
        ValueError: not a text of this shape, or longer than ten years.
    """
    match = _SHAPE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError('must be a duration such as "500ms", "30s", "5m", "24h" or "7d"')
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST:
        raise ValueError('must not be longer than "3650d"')
    return seconds


def show(seconds: float) -> str:
    """The shortest way to write so many seconds; `parse` reads it back."""
    for unit, size in _UNITS.items():
        amount = seconds / size
        if amount >= 1 and abs(amount - round(amount)) < 1e-9:
            return f"{round(amount)}{unit}"
    return "0s" if seconds == 0 else f"{round(seconds / _UNITS['ms'], 3):.3f}".rstrip("0").rstrip(".") + "ms"
