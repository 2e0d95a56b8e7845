"""What pages read of the queue beside what the API does; answers for eyes, see `worker.desk`."""

from datetime import timedelta
from typing import Any

import asyncpg

from worker import exact
from worker.desk import Desk, Row

FIND = "select worker.find_jobs($1, $2, $3, $4, worker.now() - $5::interval, $6, $7)"
SCHEDULES = "select coalesce(jsonb_agg(to_jsonb(s) order by s.name), '[]') from worker.schedules s"
TYPES = "select t.name from worker.job_type t order by t.name limit 1000"


async def overview(desk: Desk) -> Row:
    """Types, daemons, schedules, latest failures."""
    found: Row = await _one(desk, "select worker.overview()")
    return found


async def types(desk: Desk) -> list[Row]:
    """Every type with its switches and what is not at its end."""
    found: list[Row] = await _one(desk, "select worker.type_overview()")
    return found


async def schedules(desk: Desk) -> list[Row]:
    """Every schedule."""
    found: list[Row] = await _one(desk, SCHEDULES)
    return found


async def type_names(desk: Desk) -> list[str]:
    """Of declared types."""
    return [row[0] for row in await desk.ask(TYPES)]


async def trends(desk: Desk, hours: int, seconds: int) -> list[asyncpg.Record]:
    """What ended in each span."""
    return await desk.ask("select * from worker.trends($1, $2)", timedelta(hours=hours), timedelta(seconds=seconds))


async def find(desk: Desk, **asked: Any) -> Row:
    """Jobs by filter: `jobs`, `looked`, `next`."""
    names = ("job_type", "status", "tenant_id", "search", "since", "before_id", "n")
    values = [asked.get(name) for name in names[:-1]]
    given = (*values, asked.get("n", 50))
    found: Row = await _one(desk, FIND, *given)
    return found


async def job(desk: Desk, number: int) -> Row | None:
    """All that the page of a job tells; None where there is none."""
    found: Row | None = await _one(desk, "select worker.job_page($1)", number)
    return found


async def _one(desk: Desk, call: str, *arguments: Any) -> Any:
    text = (await desk.ask(call, *arguments))[0][0]
    return None if text is None else exact.readable(text)
