"""The queue as people see it, over the API and the pages: one method for each SQL function or view they ask.

The sibling of `worker.job_queue`, over connections of its own. What it answers with is for eyes: JSON as it came from
the database, instants as text, spans in seconds. Errors of every method: Refusal, Unavailable.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import orjson

from worker import exact
from worker.guests import Guests
from worker.trace_context import well_formed

Row = dict[str, Any]

_SUBMIT = "select * from worker.submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
_BULK = "select worker.bulk_begin($1, $2, $3, $4, $5)"
# In the order of its arguments.
_JOB = (
    "job_type", "payload", "scheduled_at", "delay", "priority", "unique_key", "on_conflict", "concurrency_key",
    "tenant_id", "max_attempts", "expires_at", "correlation_id", "source",
)  # fmt: skip


class Desk(Guests):
    """The queue, for people.

    Args:
        url: of the database.
    """

    async def changes(self, jobs: Sequence[int] = ()) -> Row:
        """An answer that differs from the last one when anything happened; `jobs`: a digest of each of these."""
        found: Row = await self._read("select worker.changes($1)", list(jobs))
        return found

    async def overview(self) -> Row:
        """Types, daemons, schedules, the latest failures, and what may keep the queue from going on."""
        found: Row = await self._read("select worker.overview()")
        return found

    async def types(self) -> list[Row]:
        """Every type with its switches and what is not at its end."""
        found: list[Row] = await self._read("select worker.type_overview()")
        return found

    async def type_names(self) -> list[str]:
        """Of declared types, the first thousand."""
        return [row[0] for row in await self.ask("select t.name from worker.job_type t order by t.name limit 1000")]

    async def trends(self, since: float, step: float) -> list[Row]:
        """Attempts that ended within so many seconds, by type and span of `step` seconds."""
        rows = await self.ask("select to_jsonb(t) from worker.trends($1, $2) t", _span(since), _span(step))
        return [orjson.loads(row[0]) for row in rows]

    async def find(self, chosen: Mapping[str, Any], before: int | None, n: int) -> Row:
        """The newest jobs that match type, status, tenant, text and since: `jobs`, `looked`, `next`."""
        given = (chosen.get(name) for name in ("type", "status", "tenant", "text", "since"))
        rows = await self.ask("select worker.find_jobs($1, $2, $3, $4, $5, $6, $7)", *given, before, n)
        found: Row = orjson.loads(rows[0][0])  # no payloads, and so no numbers that need to be read exactly
        return found

    async def job(self, job: int) -> Row | None:
        """A job with `steps`, `events`, `family` (its children), `explained`; None where there is none."""
        found: Row | None = await self._read("select worker.job_page($1)", job)
        return found

    async def schedules(self) -> list[Row]:
        """Every schedule with its state."""
        rows = await self.ask("select to_jsonb(s) from worker.schedules s order by s.name")
        return [orjson.loads(row[0]) for row in rows]

    async def submit(self, who: str, job: Mapping[str, Any], trace: str | None = None) -> tuple[int, bool]:
        """Enqueue a job; answers with its id, and False where that is the one which holds its unique key.

        Args:
            trace: the traceparent of whoever asks; one that is none is passed over.
        """
        given = [job.get(name) for name in _JOB]
        given[_JOB.index("payload")] = exact.dumps(job["payload"]).decode()
        delay = job.get("delay")
        given[_JOB.index("delay")] = None if delay is None else _span(delay)
        row = (await self.act(who, _SUBMIT, *given, trace=trace if trace and well_formed(trace) else ""))[0]
        return row["id"], row["added"]

    async def preview_bulk(self, verb: str, chosen: Row) -> Row:
        """What a bulk retry or cancel would do."""
        found: Row = await self._read("select worker.bulk_preview($1, $2)", verb, as_json(chosen))
        return found

    async def begin_bulk(
        self,
        who: str,
        verb: str,
        chosen: Row,
        *,
        rate: float | None = None,
        fresh: bool = False,
        reason: str | None = None,
    ) -> int:  # fmt: skip
        """Begin a bulk; answers with its number."""
        found: int = await self._done(who, _BULK, verb, as_json(chosen), rate, fresh, reason)
        return found

    async def bulk_page(self, who: str, bulk: int, n: int) -> Row:
        """The next page of a bulk: `done`, `refused`, `refusals`, `more`."""
        row = (await self.act(who, "select * from worker.bulk_page($1, $2)", bulk, n))[0]
        return {**row, "refusals": orjson.loads(row["refusals"])}

    async def cancel(self, who: str, job: int, reason: str | None) -> str:
        """Cancel a job; answers with its status: `running` where it was asked to end."""
        found: str = await self._done(who, "select worker.cancel($1, $2)", job, reason)
        return found

    async def retry(self, who: str, job: int, fresh: bool) -> str:
        """Run a failed or cancelled job again."""
        found: str = await self._done(who, "select worker.retry($1, $2)", job, fresh)
        return found

    async def pause(self, who: str, job_type: str) -> bool:
        """No more claims of a type; False when it was paused already."""
        found: bool = await self._done(who, "select worker.pause($1)", job_type)
        return found

    async def resume(self, who: str, job_type: str) -> bool:
        """End a pause; False when the type was not paused."""
        found: bool = await self._done(who, "select worker.resume($1)", job_type)
        return found

    async def run_schedule(self, who: str, name: str) -> int | None:
        """Fire a schedule now; answers with the jobs that were added, None where a daemon is to read for_each."""
        found: int | None = await self._done(who, "select worker.run_schedule($1)", name)
        return found

    async def pause_schedule(self, who: str, name: str) -> bool:
        """A schedule fires no more; False when it was paused already."""
        found: bool = await self._done(who, "select worker.pause_schedule($1)", name)
        return found

    async def resume_schedule(self, who: str, name: str) -> bool:
        """End the pause of a schedule; False when it was not paused."""
        found: bool = await self._done(who, "select worker.resume_schedule($1)", name)
        return found

    async def _read(self, call: str, *arguments: Any) -> Any:
        text = (await self.ask(call, *arguments))[0][0]
        return None if text is None else exact.readable(text)

    async def _done(self, who: str, call: str, *arguments: Any) -> Any:
        return (await self.act(who, call, *arguments))[0][0]


def as_json(value: object) -> str:
    """A value as the text that a jsonb argument takes."""
    return orjson.dumps(value).decode()


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
