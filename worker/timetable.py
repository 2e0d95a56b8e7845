"""The schedules as the daemon sees them: one method for each SQL function that it calls for them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import orjson

from worker.connection import Connection

FIRE_SECONDS = 300.0  # at most; who gives a connection has a deadline of its own
FIRE = "select worker.fire($1, $2, $3, $4, $5)"


class Due(NamedTuple):
    """A schedule that there is something to do for.

    Attributes:
        next_at: the next run; None where it is to be worked out from now on.
        asked_at: when an operator asked for a run; None where nobody did.
        failures: how often in a row its next run could not be fired.
        at: now, as the database has it.
    """

    name: str
    cron: str
    zone: str
    for_each: str | None
    missed: str
    max_catch_up: int
    next_at: datetime | None
    asked_at: datetime | None
    paused: bool
    failures: int
    at: datetime


class Timetable:
    """The schedules with these names, over the control pool or one connection.

    Args:
        names: those that this configuration declares; others are other daemons' to fire.
    """

    def __init__(
        self, control: "asyncpg.Pool[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]", names: Sequence[str]
    ) -> None:
        self._control = control
        self.names = list(names)

    async def declare(self, declarations: Sequence[dict[str, Any]], types: Sequence[str]) -> list[tuple[str, str]]:
        """Make declared schedules known to SQL; answers with (name, declared, changed or disabled)."""
        given = orjson.dumps(declarations).decode()
        rows = await self._control.fetch("select * from worker.declare_schedules($1::jsonb, $2)", given, list(types))
        return [(row["name"], row["change"]) for row in rows]

    async def due(self) -> list[Due]:
        """Those that there is something to do for, the longest overdue first."""
        return [Due(*row) for row in await self._control.fetch("select * from worker.due_schedules($1)", self.names)]

    async def fire(
        self,
        due: Due,
        runs: Sequence[datetime],
        next_at: datetime | None,
        asked: datetime | None,
        connection: Connection | None = None,
    ) -> int | None:
        """Fire, over a connection of its own where a function is called for it.

        Returns:
            How many jobs were added; None when somebody else was first.
        """
        given = (due.name, due.next_at, list(runs), next_at, asked)
        added: int | None
        if connection is None:
            added = await self._control.fetchval(FIRE, *given)
        else:
            added = await connection.fetchval(FIRE, *given, timeout=FIRE_SECONDS)
        return added

    async def failed(self, due: Due, asked: datetime | None, message: str, delay: float) -> None:
        """Note on the schedule why it was not fired; it is tried again in `delay` seconds."""
        await self._control.execute(
            "select worker.schedule_failed($1, $2, $3, $4, $5)", due.name, due.next_at, asked, message, delay
        )
