"""The progress reconcile: what trackers wrote down, compared with the teams that are there, and corrected.

For `worker reconcile`, and for the job type

    [job.reconcile]
    python = "worker.jobs.reconcile:reconcile"

What is to be done is decided in sql/jobs/reconcile alone.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from worker import Context, InvalidJob

BATCH = 500  # competitions in one statement
CALL_SECONDS = 86_400.0  # the server ends a statement; the client only keeps from waiting for ever
RECORDS = {"competition": "competitions", "season": "seasons"}
ACTIONS = ("add", "update", "held", "unproven")
_KEYS = {"competition", "execute", "tenant_id"}
_BATCHES = "select * from league.reconcile_batches($1)"
_PLAN = "select * from league.reconcile_plan($1, $2, $3::text::interval)"
_APPLY = "select * from league.reconcile_apply($1, $2, $3::text::interval)"
_TIMEOUTS = "select league.set_timeouts($1::text::interval, $2::text::interval)"

Told = Callable[[int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Terms:
    """What one reconcile may do.

    Args:
        execute: write; else only look, in a read-only transaction.
        competition: this one only.
        live: how long a worker that has a record in hand is taken for alive; this and the others as PostgreSQL
            reads intervals ("30m", "5 seconds").
        lock_timeout: of the wait for another reconcile, and for any lock.
        statement_timeout: of each statement; one looks after 500 competitions.
    """

    execute: bool = False
    competition: str | None = None
    live: str = "30m"
    lock_timeout: str = "5s"
    statement_timeout: str = "60s"


@dataclass(frozen=True, slots=True)
class Report:
    """What a reconcile found, and did where it executes.

    Args:
        rows: of `league.reconcile_plan`, in its order.
        found: whether there are teams of the competition that was asked for.
    """

    terms: Terms
    rows: list[Any] = field(default_factory=list)
    found: bool = True

    def counts(self) -> dict[str, dict[str, int]]:
        """Rows by record and action, zeros included."""
        counted = Counter((row["record"], row["action"]) for row in self.rows)
        return {name: {action: counted[record, action] for action in ACTIONS} for record, name in RECORDS.items()}

    @property
    def drift(self) -> int:
        """Records that differed from the evidence; those in a live worker's hands do not count."""
        return sum(row["action"] != "held" for row in self.rows)

    @property
    def fixed(self) -> int:
        """How many of them were corrected."""
        return sum(row["action"] in ("add", "update") for row in self.rows) if self.terms.execute else 0

    @property
    def in_sync(self) -> bool:
        """Nothing differs any more, and there was something to compare."""
        return self.found and self.drift == self.fixed

    def figures(self) -> dict[str, Any]:
        """The report without its rows, for JSON."""
        return {
            "execute": self.terms.execute,
            "competition": self.terms.competition,
            "found": self.found,
            "in_sync": self.in_sync,
            "drift": self.drift,
            "fixed": self.fixed,
            "counts": self.counts(),
        }


async def compare(connection: Any, terms: Terms, told: Told | None = None) -> Report:
    """Plan, or plan and apply, in one transaction: an error, a cancellation or a lost connection leaves nothing.

    Args:
        told: called with the competitions that are done and those in all, before each statement and at the end.
    """
    # A look stands on one snapshot; each statement that writes, on its own, taken when the lock is held.
    isolation = "read_committed" if terms.execute else "repeatable_read"
    async with connection.transaction(isolation=isolation, readonly=not terms.execute):
        await connection.execute(_TIMEOUTS, terms.lock_timeout, terms.statement_timeout)
        rows = await _rows(connection, terms, told)
        wanted = terms.competition
        found = wanted is None or await connection.fetchval("select league.has_teams($1)", wanted)
    return Report(terms, rows, found)


async def reconcile(context: Context) -> dict[str, Any]:
    """The job: compares, and corrects where `execute` is true in the payload or, failing that, in the settings.

    Returns:
        The figures of the report; `drift` and `fixed` are those to watch.

    Raises:
        InvalidJob: the payload asks for something else.
    """
    terms = _terms(context.payload, context.settings)

    async def told(done: int, total: int) -> None:
        await context.progress("reconciling" if terms.execute else "comparing", done=done, total=total)

    async with context.connection() as connection:
        return (await compare(connection, terms, told)).figures()


async def _rows(connection: Any, terms: Terms, told: Told | None) -> list[asyncpg.Record]:
    if terms.competition is None:
        stretches = [tuple(each) for each in await connection.fetch(_BATCHES, BATCH, timeout=CALL_SECONDS)]
    else:
        stretches = [(terms.competition, terms.competition, 1)]
    statement = _APPLY if terms.execute else _PLAN
    rows: list[asyncpg.Record] = []
    done, total = 0, sum(count for *_, count in stretches)
    for first, last, count in stretches:
        if told:
            await told(done, total)
        rows += await connection.fetch(statement, first, last, terms.live, timeout=CALL_SECONDS)
        done += count
    if told:
        await told(done, total)
    return rows


def _terms(payload: Any, settings: Mapping[str, Any]) -> Terms:
    if not isinstance(payload, dict) or payload.keys() - _KEYS:
        raise InvalidJob(f"the payload of a reconcile has at most {', '.join(sorted(_KEYS))}")
    given = {name: payload[name] for name in ("competition", "execute") if name in payload}
    try:
        terms = Terms(**{**settings, **given})
    except TypeError as error:
        raise InvalidJob(f"settings of the reconcile: {error}") from None
    if not isinstance(terms.execute, bool) or not isinstance(terms.competition, str | None):
        raise InvalidJob("execute is true or false, competition is a text")
    return terms
