"""What an experiment is, what it came to, and the list of all of them.

An experiment is a coroutine over a place, under its number in the acceptance suite. It counts what it injected, and
passes when every sentence it expected holds and no fault that was planned is missing.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stress.place import Place

TIERS = ("fast", "nightly", "soak")
LIMIT_SECONDS = 300.0


@dataclass
class Report:
    """What one experiment came to.

    Attributes:
        planned: faults that it is to inject; one that injected fewer has shown nothing, and fails.
        lost: jobs that are not final, or said to be done by nobody.
        duplicates: executions beyond one, which at-least-once allows for handlers.
        effects: step effects or overlaps of a key beyond one, which nothing allows.
        recovery: seconds from each fault to what made up for it, at default settings.
        violations: invariants that the checker found broken.
        stuck: seconds from each kill to the rescue of what it stranded.
        figures: what else is worth a line, by name.
        faults: sentences; empty = passed.
        slack: what a bound in seconds is stretched by, where much runs side by side on a small machine.
        first: faults of a first run that was repeated by itself.
    """

    id: str
    planned: int
    injected: int = 0
    lost: int = 0
    duplicates: int = 0
    effects: int = 0
    stale_accepted: int = 0
    stale_refused: int = 0
    violations: int = 0
    recovery: list[float] = field(default_factory=list)
    stuck: list[float] = field(default_factory=list)
    jobs: int = 0
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    skipped: str | None = None
    slack: float = 1.0
    first: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.skipped is None and not self.faults and self.injected >= self.planned

    def expect(self, true: bool, otherwise: str) -> None:
        """Note a sentence when something does not hold."""
        if not true:
            self.faults.append(otherwise)


class Missing(Exception):
    """A program or a right that the experiment needs is not on this machine; it is skipped, and says so."""


Conduct = Callable[["Place", Report], Awaitable[None]]


@dataclass(frozen=True)
class Experiment:
    """One registered experiment.

    Attributes:
        id: its number in the acceptance suite and a name, as `1-kill-loop`.
        planned: faults by tier; in a tier that is not named it does not run.
        own_server: it stops, kills or configures Postgres, and gets one of its own.
        quiet: it mostly waits, so it may run beside others.
        limit: seconds after which it has failed.
    """

    id: str
    planned: Mapping[str, int]
    conduct: Conduct
    own_server: bool = False
    quiet: bool = False
    limit: float = LIMIT_SECONDS


EXPERIMENTS: dict[str, Experiment] = {}


def experiment(
    id: str, *, own_server: bool = False, quiet: bool = False, limit: float = LIMIT_SECONDS, **planned: int
) -> Callable[[Conduct], Conduct]:
    """Register a coroutine: `@experiment("1-kill-loop", fast=20, nightly=200)`."""
    assert planned.keys() <= set(TIERS), planned

    def register(conduct: Conduct) -> Conduct:
        assert id not in EXPERIMENTS, id
        EXPERIMENTS[id] = Experiment(id, planned, conduct, own_server, quiet, limit)
        return conduct

    return register
