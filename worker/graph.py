"""Steps with needs: checked, ordered, and the longest remaining path. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from statistics import fmean

from worker.errors import GraphError


@dataclass(frozen=True, slots=True)
class Step:
    """One SQL function of a graph.

    Attributes:
        name: the step's name within its job type.
        sql: the function's name, qualified or resolved through `database.search_path` at start.
        tags: what becomes stale when the step takes effect; announced to `then` jobs.
        needs: names of steps that must be done before.
        timeout: seconds on the server, or None for the attempt's own timeout.
        optional: a failure counts as done for those who need this step, and does not fail the attempt.
    """

    name: str
    sql: str
    tags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    timeout: float | None = None
    optional: bool = False


class Graph:
    """The steps of one job type, in an order in which every need comes first.

    Raises:
        GraphError: no steps, a need that is no step, or a cycle; all faults at once.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        given = {step.name: step for step in steps}
        faults = [
            f"{step.name}: needs {need!r}, which is not a step of this job"
            for step in given.values()
            for need in step.needs
            if need not in given
        ]
        if not given:
            faults.append("a graph needs at least one step")
        if faults:
            raise GraphError(faults)
        self.steps: Mapping[str, Step] = {name: given[name] for name in _ordered(given)}
        self.dependents = {name: _dependents(name, given) for name in self.steps}

    def __len__(self) -> int:
        return len(self.steps)

    def remaining(self, cost: Mapping[str, float]) -> dict[str, float]:
        """Longest path, in seconds, from the start of each step to the end of the graph.

        Args:
            cost: measured seconds by step; a step without a measurement costs the mean of the others, or 1.
        """
        known = [seconds for name, seconds in cost.items() if name in self.steps]
        unknown = fmean(known) if known else 1.0

        @cache
        def path(name: str) -> float:
            after = max((path(next_) for next_ in self.dependents[name]), default=0.0)
            return cost.get(name, unknown) + after

        return {name: path(name) for name in self.steps}

    def tagged(self) -> bool:
        """True when at least one step carries tags."""
        return any(step.tags for step in self.steps.values())


def _ordered(given: Mapping[str, Step]) -> list[str]:
    sorter = TopologicalSorter({name: step.needs for name, step in given.items()})
    try:
        return list(sorter.static_order())
    except CycleError as error:
        # graphlib lists the cycle from need to dependent; a reader thinks from dependent to need.
        raise GraphError(["needs form a cycle: " + " -> ".join(reversed(error.args[1]))]) from None


def _dependents(name: str, given: Mapping[str, Step]) -> tuple[str, ...]:
    return tuple(step.name for step in given.values() if name in step.needs)
