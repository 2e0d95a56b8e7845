"""One beat: what a process says of itself, and what it is told of itself, of the others and of what there is to do."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import asyncpg
import structlog

from worker.connection import Connection
from worker.database import is_transient

_LOOK = "select * from worker.beat_and_look($1, $2, $3)"
_LOOK_AT_SCHEDULES = "select * from worker.beat_and_look($1, $2, $3, $4)"

_log = structlog.get_logger()


class Chores(NamedTuple):
    """What waits to be done, by whoever looks.

    Attributes:
        strays: there are rows for a sweep.
        orphans: there may be rows of dead processes.
        due: seconds until the first pending row of our types is due, below zero when it is overdue; None without one.
        next_schedule: the same for the first of our schedules.
    """

    strays: bool
    orphans: bool
    due: float | None
    next_schedule: float | None = None


NOTHING = Chores(False, False, None)


class Told(NamedTuple):
    """The answer to one beat.

    Attributes:
        alive: False when others declared this process dead.
        stops: claims that were asked to stop.
        suspects: the processes that are missing or lapsed, as `Judge.gone` takes them.
        chores: None when trouble with them must not end the beat.
    """

    alive: bool
    stops: Sequence[int]
    suspects: Mapping[int, Mapping[str, bool]]
    chores: Chores | None


async def beat(
    connection: Connection, me: int, open_batch: int, types: Sequence[str], schedules: Sequence[str] = ()
) -> Told:
    """Renew the lease of process `me`, and look around."""
    try:
        if schedules:
            row = await connection.fetchrow(_LOOK_AT_SCHEDULES, me, open_batch, types, schedules)
        else:
            row = await connection.fetchrow(_LOOK, me, open_batch, types)
    except asyncpg.PostgresError as error:
        if is_transient(error) or connection.is_closed():
            raise
        # Trouble with the others must not end our own beat.
        _log.warning("lease.not_judged", error=type(error).__name__, sqlstate=error.sqlstate)
        row = await connection.fetchrow("select * from worker.beat($1, $2)", me, open_batch)
        assert row is not None
        return Told(row["alive"], row["stops"], {}, None)
    assert row is not None
    missing, lapsed = row["missing"] or (), row["lapsed"] or ()
    suspects = {other: {"missing": other in missing, "lapsed": other in lapsed} for other in (*missing, *lapsed)}
    chores = Chores(bool(row["strays"]), bool(row["orphans"]), row["due"], row["next_schedule"] if schedules else None)
    return Told(row["alive"], row["stops"], suspects, chores)
