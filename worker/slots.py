"""Turns to run: so many calls at once, and of those with steps no more than there are step connections."""

from itertools import count

from worker.attempt import Attempt

STEPS = "steps"


class Slots:
    """Who may run now, first come, first served.

    A call with steps that waits for others like it waits outside: it holds no slot that another kind could use.
    A suspect begins when nobody else runs, and those behind it wait.

    Args:
        concurrency: calls that run at once.
        connections: how many of them may be of kind `steps`: each has a connection then, and no attempt's time runs out
            while it waits for one that another holds.
    """

    def __init__(self, concurrency: int, connections: int) -> None:
        self._free = self._size = concurrency
        self._free_steps = min(connections, concurrency)
        self._order = count()
        self._suspects = 0  # in line
        self.alone: Attempt | None = None
        self._lines: tuple[dict[Attempt, int], dict[Attempt, int]] = ({}, {})  # by arrival: with steps, without

    def take(self, attempt: Attempt) -> bool:
        """True when it may begin; otherwise it stands in line from now on."""
        steps = attempt.kind == STEPS
        if not self._suspects and (not steps or self._free_steps > 0) and self._may(attempt):
            self._begin(attempt)
            return True
        self._lines[not steps][attempt] = next(self._order)
        self._suspects += attempt.suspect
        return False

    def leave(self, attempt: Attempt) -> bool:
        """It will not begin any more; False when it did not stand in line."""
        if self._lines[attempt.kind != STEPS].pop(attempt, None) is None:
            return False
        self._suspects -= attempt.suspect
        return True

    def free(self, attempt: Attempt) -> Attempt | None:
        """It has ended; answers with the one whose turn has come, and who may begin."""
        self._free += 1
        self._free_steps += attempt.kind == STEPS
        self.join(attempt)
        return self.next()

    def next(self) -> Attempt | None:
        """The first in line, if its turn has come; it may begin."""
        if self._free <= 0 or not (line := self._line()):
            return None  # as nearly always
        first = next(iter(line))
        if not self._may(first):
            return None
        del line[first]
        self._suspects -= first.suspect
        self._begin(first)
        return first

    def _line(self) -> dict[Attempt, int]:
        """The one whose first came before the other's, of those that may go on."""
        steps, others = self._lines
        if not steps or self._free_steps <= 0:
            return others
        return min(self._lines, key=_arrival) if others else steps

    def join(self, attempt: Attempt) -> None:
        """From now on others may run beside it."""
        if self.alone is attempt:
            self.alone = None

    def hurry(self, attempt: Attempt) -> Attempt | None:
        """It stands in line, and waits no longer until it can be alone; answers with the one who may begin."""
        self._suspects -= attempt.suspect
        attempt.suspect = False
        return self.next()

    def _may(self, attempt: Attempt) -> bool:
        return self._free > 0 and self.alone is None and (not attempt.suspect or self._free == self._size)

    def _begin(self, attempt: Attempt) -> None:
        self._free -= 1
        self._free_steps -= attempt.kind == STEPS
        if attempt.suspect:
            self.alone = attempt

    def waiting(self) -> list[Attempt]:
        """Those in line, the oldest of each kind first."""
        return [*self._lines[0], *self._lines[1]]


def _arrival(line: dict[Attempt, int]) -> int:
    return next(iter(line.values()))
