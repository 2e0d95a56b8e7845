"""One thing that was looked at, and what was found."""

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "info", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a subject; a warning and a fault name their cure."""

    subject: str
    level: Level
    said: str
    cure: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """For --json."""
        return asdict(self)


def ok(subject: str, said: str) -> Finding:
    return Finding(subject, "ok", said)


def info(subject: str, said: str) -> Finding:
    return Finding(subject, "info", said)


def warning(subject: str, said: str, cure: str) -> Finding:
    return Finding(subject, "warning", said, cure)


def fault(subject: str, said: str, cure: str) -> Finding:
    return Finding(subject, "fault", said, cure)
