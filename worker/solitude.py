"""Jobs of which processes may have died run alone for a while, so that the next death tells whose fault it was."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from worker.attempt import Attempt
from worker.context import Context
from worker.database import DATABASE_ERRORS
from worker.errors import JobError
from worker.slots import Slots

ALONE_SECONDS = 5.0  # long enough for what kills its process, short enough for those who wait
ALONE, IN_COMPANY = "alone", "in company"  # phases; `worker.rescue` knows the first

_log = structlog.get_logger()


class Solitude:
    """Runs what has begun alone, and ends its solitude in time.

    Args:
        go_on: lets others begin.
    """

    def __init__(self, slots: Slots, go_on: Callable[[Attempt | None], None]) -> None:
        self._slots = slots
        self._go_on = go_on
        self._joining: set[asyncio.Task[None]] = set()

    async def call(self, attempt: Attempt, context: Context, call: Callable[[Context], Awaitable[Any]]) -> Any:
        """The call, with a note on its row first; answers with what ended it before it began, if anything did."""
        if error := await _show(context, ALONE):
            return error
        asyncio.get_running_loop().call_later(ALONE_SECONDS, self._end, attempt, context)
        return await call(context)

    def _end(self, attempt: Attempt, context: Context) -> None:
        if self._slots.alone is attempt:
            joining = asyncio.create_task(self._join(attempt, context), name=f"job {context.job.id} in company")
            self._joining.add(joining)
            joining.add_done_callback(self._joining.discard)

    async def _join(self, attempt: Attempt, context: Context) -> None:
        await _show(context, IN_COMPANY)
        self._slots.join(attempt)
        self._go_on(self._slots.next())


async def _show(context: Context, phase: str) -> JobError | None:
    try:
        await context.progress(phase)
    except JobError as error:
        return error
    except DATABASE_ERRORS as error:  # then nobody knows that it is alone, and a death is everybody's
        _log.debug("phase.not_shown", error=type(error).__name__)
    return None
