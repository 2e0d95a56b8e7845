"""Waiting for a database that does not answer yet."""

import asyncpg
import structlog
import tenacity

from worker.database import DATABASE_ERRORS, is_transient
from worker.door import is_refusal
from worker.errors import DatabaseUnreachable
from worker.way import CONNECT_SECONDS

CLOSE_SECONDS = 5.0

_log = structlog.get_logger()


async def wait_until_up(url: str, seconds: float | None = None, *, refusals: bool = False) -> None:
    """Wait, with backoff and a line in the log, until the database answers.

    Args:
        refusals: they are waited out as well: it let us in before.

    Raises:
        DatabaseUnreachable: refused for good (wrong password, no such database), or `seconds` passed.
    """
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda error: is_transient(error) or (refusals and is_refusal(error))),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5 if seconds is None else 1),
        # Before, not after: the last error is what a person wants to read.
        stop=tenacity.stop_before_delay(seconds) if seconds is not None else tenacity.stop_never,
        before_sleep=_say_waiting,
        reraise=True,
    )
    try:
        async for attempt in retrying:
            with attempt:
                connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
                await connection.close(timeout=CLOSE_SECONDS)
    except DATABASE_ERRORS as error:
        raise DatabaseUnreachable(f"the database does not let us in: {type(error).__name__}: {error}") from None


def _say_waiting(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    _log.warning("database.waiting", error=f"{type(error).__name__}: {error}", again_in=round(pause, 2))
