"""Decides from the evidence alone whether the promises held (I1 to I14 of the acceptance suite).

It knows the words of the public contract, job_queue's statuses and columns, and nothing of the daemon's code. Each
question answers with the rows that break a promise; none is the only good answer. `tests/stress/naive.py` is the
worker that it must catch. Decided by the experiments themselves, because they are of speed: I5 (wake-ups) and I10
(isolation).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.stress.questions import QUESTIONS

CANARY = "canary-6f1d2c"  # in every password, payload and key of the suite, for no log to hold
SECRETS = "a secret in a log"  # I12


@dataclass(frozen=True)
class Violation:
    """A promise that did not hold, and the first rows that show it."""

    invariant: str
    what: str
    rows: tuple[tuple[object, ...], ...]

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}: {list(self.rows[:3])}"


async def violations(connection: asyncpg.Connection, *but: str, logs: Iterable[Path] = ()) -> list[Violation]:
    """Ask every question, but those of the invariants named."""
    found = []
    for invariant, questions in QUESTIONS.items():
        for what, question in questions.items():
            if invariant not in but and (rows := await connection.fetch(question)):
                found.append(Violation(invariant, what, tuple(tuple(row) for row in rows)))
    if "I12" not in but and (lines := tuple(leaks(logs))):
        found.append(Violation("I12", SECRETS, lines))
    return found


def leaks(logs: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Lines that hold the canary, whole or as it stands in an address."""
    for log in logs:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if CANARY in line:
                yield log.name, line[:200]
