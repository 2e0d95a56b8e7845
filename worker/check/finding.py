"""One thing that was looked at, and what was found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "info", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found; a warning and a fault name their cure.

    Attributes:
        code: `SUBJECT.WHAT`, by which docs/check.md explains it; the subject alone where nothing is wrong.
        cure: SQL when it ends with a semicolon, else what is to be done, with commands in backticks.
    """

    code: str
    level: Level
    said: str
    cure: str | None = None

    @property
    def subject(self) -> str:
        return self.code.partition(".")[0]

    def as_dict(self) -> dict[str, str | None]:
        """For --json."""
        return {
            "subject": self.subject,
            "code": self.code,
            "level": self.level,
            "said": self.said,
            "cure": self.cure,
        }


def ok(subject: str, said: str) -> Finding:
    return Finding(subject, "ok", said)


def info(subject: str, said: str) -> Finding:
    return Finding(subject, "info", said)


def warning(code: str, said: str, cure: str) -> Finding:
    return Finding(code, "warning", said, cure)


def fault(code: str, said: str, cure: str) -> Finding:
    return Finding(code, "fault", said, cure)
