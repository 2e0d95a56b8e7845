"""The queue as the daemon sees it: one method for each SQL function it calls.

With `worker.ongoing`, a part of it, the only module of the daemon that knows their names, but for what goes over
connections of another kind: the lease's own and those of steps.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg
import orjson

from worker.database import borrowed
from worker.errors import ProcessDead
from worker.job import Job
from worker.ongoing import Ongoing
from worker.places import Places
from worker.verdict import Verdict

# A row a job, not one array of all: to send that array the server takes 1 kB for each value in it, 6 MB for 500 jobs,
# which it gets from the system and gives back with every call (docs/decisions/0034).
_CLAIM = """select j.*, parked, xmin, xmax, next_due, places
  from worker.claim($1, $2, $3, $4, $5) left join unnest(jobs) j on true"""
COLUMNS = len(Job._fields)
# Arrays as text: the driver asks each element of a list whether it is one itself, which took 0.5 µs a job.
_COMPLETE = "select worker.complete($1, $2::text::bigint[], $3::text::bigint[])"
COUNTS_SECONDS = 5.0  # for a connection, and for the answer: counts keep


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one claim call brought.

    Attributes:
        parked: rows that were due but behind a busy concurrency key: claim again at once.
        xmin, xmax: of the look's snapshot, for the wake-up's horizon check.
        next_due: seconds until the next row is due; only after a short batch.
    """

    jobs: Sequence[Job]
    parked: int
    xmin: int
    xmax: int
    next_due: float | None


class Pruned(NamedTuple):
    """What one page of a prune came to: the last id seen, jobs deleted, whether old ones may follow."""

    last: int
    gone: int
    more: bool


class JobQueue(Ongoing):
    """The queue, for process `me`, over the control pool.

    Claim calls are numbered. A call whose answer never came may still have taken rows; `claim` and `rescue` give those
    back before they ask again.
    """

    def __init__(self, control: "asyncpg.Pool[asyncpg.Record]", me: int, types: Sequence[str]) -> None:
        self._control = control
        self.me = me
        self.types = list(types)
        self._places = Places()
        self._batch = 0
        self._unanswered: set[int] = set()
        self._in_flight: set[int] = set()
        self._held: Counter[int] = Counter()
        self._batch_of: dict[int, int] = {}
        self.open_batch = 0  # read by the lease's thread

    async def claim(self, n: int, types: Sequence[str] | None = None) -> Claimed:
        """Claim up to `n` due rows, of all this process's types or of some.

        Raises:
            ProcessDead: this process was declared dead.
        """
        since, after = self._places.after()
        batch, rows = await self._numbered(_CLAIM, self.types if types is None else types, n, after)
        looked = rows[0]
        self._places.reached(since, looked["places"])
        jobs = self._hold(batch, [row[:COLUMNS] for row in rows] if looked["id"] is not None else ())
        return Claimed(jobs, looked["parked"], looked["xmin"], looked["xmax"], looked["next_due"])

    async def rescue(self, n: int) -> Sequence[Job]:
        """Take over up to `n` rows of processes declared dead, to judge and settle them."""
        return self._hold(*await self._numbered("select * from worker.rescue($1, $2, $3)", n))

    async def settle(self, verdicts: Sequence[Verdict]) -> dict[int, str]:
        """Write verdicts; answers with the status by job id and lacks those whose claim is lost."""
        if all(verdict.plain for verdict in verdicts):
            return await self._complete(verdicts)
        rows = await self._control.fetch("select * from worker.settle($1, $2)", self.me, verdicts)
        return {row["id"]: row["status"] for row in rows}

    async def _complete(self, verdicts: Sequence[Verdict]) -> dict[int, str]:
        ids, claims = [verdict.id for verdict in verdicts], [verdict.claim for verdict in verdicts]
        (row,) = await self._control.fetch(_COMPLETE, self.me, _array(ids), _array(claims))
        done = dict.fromkeys(ids, "completed")
        for lost in row[0]:
            del done[lost]
        return done

    async def settled(self, verdicts: Sequence[Verdict]) -> dict[int, str]:
        """Status by job id of the verdicts that are on their rows already: for a lost acknowledgement."""
        rows = await self._control.fetch("select * from worker.settled($1, $2)", self.me, verdicts)
        return {row["id"]: row["status"] for row in rows}

    def drop(self, claims: Iterable[int]) -> None:
        """Forget claims that are settled or lost."""
        batches = Counter([self._batch_of.pop(claim, None) for claim in claims])
        for batch, jobs in batches.items():
            if batch is not None:
                self._held[batch] -= jobs
                if self._held[batch] <= 0:
                    del self._held[batch]
        self._note_open()

    async def declare(self, declarations: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
        """Make declared job types known to SQL; answers with (name, declared or changed)."""
        rows = await self._control.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(declarations).decode())
        return [(row["name"], row["change"]) for row in rows]

    async def declare_dead(self, suspect: int) -> bool:
        """Declare another process dead and end its connections; False when it came back."""
        return bool(await self._control.fetchval("select worker.declare_dead($1, $2)", self.me, suspect))

    async def sweep(self) -> int:
        """Heal: expired rows, parked heads, notes that outlived their job; answers with rows touched."""
        return int(await self._control.fetchval("select worker.sweep()"))

    async def sleep(self, poll: float) -> None:
        """Turn this process's bell on, or renew it, for six polls."""
        await self._control.execute("select worker.sleep($1, $2)", self.me, poll)

    async def wake(self) -> None:
        """Turn this process's bell off."""
        await self._control.execute("select worker.wake($1)", self.me)

    async def remains(self) -> asyncpg.Record | None:
        """What this process ran, what is left and why, and in how many seconds the next retry or snooze is due."""
        return await self._control.fetchrow("select * from worker.remains($1, $2)", self.me, self.types)

    async def test_ring(self, nonce: str) -> None:
        """Ring for the listener's self-test."""
        await self._control.execute("select worker.test_ring($1)", nonce)

    async def rings(self) -> bool:
        """Whether inserts ring in this database."""
        return bool(await self._control.fetchval("select worker.rings()"))

    async def prune(self, keep: dict[str, float], after: int) -> Pruned:
        """Delete the finished jobs of one page after an id that are older than `keep` (seconds by status)."""
        row = await self._control.fetchrow(
            "select last, gone, more from worker.prune($1::jsonb, $2)", orjson.dumps(keep).decode(), after
        )
        assert row is not None
        return Pruned(row["last"] or after, row["gone"], row["more"])

    async def health(self) -> dict[str, Any]:
        """What gauges are sampled from: counts and ages by type, and the oldest transaction, spans in seconds."""
        return _read(await self._control.fetchval("select worker.health()"))

    async def add_counts(self, counts: Any, attempts: Any, sending: Callable[[], None]) -> None:
        """Add to what all daemons counted.

        Args:
            sending: called when it leaves; before, nothing can have been written.
        """
        given = [orjson.dumps(each).decode() for each in (counts, attempts)]
        async with borrowed(self._control, COUNTS_SECONDS) as connection:
            sending()
            await connection.execute("select worker.add_counts($1::jsonb, $2::jsonb)", *given, timeout=COUNTS_SECONDS)

    async def last_results(self, types: Sequence[str]) -> list[asyncpg.Record]:
        """By `job_type` the JSON text of the `result` of the job completed last, and its `age` in seconds."""
        rows: list[asyncpg.Record] = await self._control.fetch("select * from worker.last_results($1)", list(types))
        return rows

    async def leave(self) -> None:
        """The process stops in good order and holds nothing any more."""
        await self._control.execute("select worker.leave($1)", self.me)

    async def give_back(self) -> None:
        """Give back what claim calls took whose answer never came, so that nobody waits for it."""
        for lost in sorted(self._unanswered - self._in_flight):
            await self._control.execute("select worker.unclaim($1, $2)", self.me, lost)
            self._unanswered.discard(lost)

    async def _numbered(self, call: str, *arguments: Any) -> tuple[int, list[asyncpg.Record]]:
        with suppress(asyncpg.LockNotAvailableError):  # the lost call hangs on the server; ours does not wait for it
            await self.give_back()
        self._batch += 1
        batch = self._batch
        self._unanswered.add(batch)  # until the answer is here; also when this task is cancelled
        self._in_flight.add(batch)  # claim and rescue ask side by side: what is on its way is not lost
        try:
            rows: list[asyncpg.Record] = await self._control.fetch(call, self.me, batch, *arguments)
        except asyncpg.PostgresError as error:
            if error.sqlstate == "WK006":
                raise ProcessDead(str(error)) from None
            raise
        finally:
            self._in_flight.discard(batch)
        self._unanswered.discard(batch)
        return batch, rows

    def _hold(self, batch: int, rows: Iterable[Iterable[Any]]) -> list[Job]:
        jobs = [tuple.__new__(Job, row) for row in rows]  # as Job._make, in half the time
        self._batch_of |= dict.fromkeys([job.claim for job in jobs], batch)
        if jobs:
            self._held[batch] += len(jobs)
        self._note_open()
        return jobs

    def _note_open(self) -> None:
        self.open_batch = min((*self._held, *self._unanswered), default=self._batch)


async def try_claim(connection: asyncpg.Connection, me: int, types: Sequence[str]) -> None:
    """Do what a claim does, for no rows; raises as it does."""
    await connection.fetchrow("select * from worker.claim($1, 0, $2, 0, null)", me, list(types))


async def profile(connection: asyncpg.Connection) -> dict[str, Any]:
    """What a connection of any pool can do."""
    return _read(await connection.fetchval("select worker.profile()"))


def _array(numbers: list[int]) -> str:
    return f"{{{','.join(map(str, numbers))}}}"


def _read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(text)
    return found
