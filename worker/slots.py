"""Turns to run: so many calls at once, and of those with steps no more than there are step connections."""

from itertools import count

from worker.attempt import Attempt

STEPS = "steps"


class Slots:
    """Who may run now, first come, first served.

    A call with steps that waits for others like it waits outside: it holds no slot that another kind could use.

    Args:
        concurrency: calls that run at once.
        connections: how many of them may be of kind `steps`: each has a connection then, and no attempt's time runs out
            while it waits for one that another holds.
    """

    def __init__(self, concurrency: int, connections: int) -> None:
        self._free = concurrency
        self._free_steps = min(connections, concurrency)
        self._order = count()
        self._lines: tuple[dict[Attempt, int], dict[Attempt, int]] = ({}, {})  # by arrival: with steps, without

    def take(self, attempt: Attempt) -> bool:
        """True when it may begin; otherwise it stands in line from now on."""
        steps = attempt.kind == STEPS
        if self._free > 0 and (not steps or self._free_steps > 0):
            self._free -= 1
            self._free_steps -= steps
            return True
        self._lines[not steps][attempt] = next(self._order)
        return False

    def leave(self, attempt: Attempt) -> bool:
        """It will not begin any more; False when it did not stand in line."""
        return self._lines[attempt.kind != STEPS].pop(attempt, None) is not None

    def free(self, attempt: Attempt) -> Attempt | None:
        """It has ended; answers with the one whose turn has come, and who may begin."""
        self._free += 1
        self._free_steps += attempt.kind == STEPS
        heads = [line for line in self._lines if line and (self._free_steps > 0 or line is not self._lines[0])]
        if not heads:
            return None
        line = min(heads, key=lambda line: next(iter(line.values())))
        first = next(iter(line))
        del line[first]
        self._free -= 1
        self._free_steps -= first.kind == STEPS
        return first

    def waiting(self) -> list[Attempt]:
        """Those in line, the oldest of each kind first."""
        return [*self._lines[0], *self._lines[1]]
