"""The door to the database: who knocks when, while nobody lets us in."""

import asyncio
import ssl
import time
from typing import Any

import asyncpg
import structlog

from worker.connection import backoff

AGAIN_SECONDS = 2.0  # most, between knocks

_log = structlog.get_logger()


class ShutOut(ConnectionError):
    """No connection now; the same call may get one a moment later."""


def without_tls(error: BaseException) -> bool:
    """True when the server does not speak TLS, or not as the address asks for it: no waiting helps."""
    return isinstance(error, ssl.SSLCertVerificationError) or "rejected SSL upgrade" in str(error)


def is_refusal(error: BaseException) -> bool:
    """True when the server lets in nobody like us: wrong password, no such database, no TLS.

    At a start that is for good. Who was let in before waits: passwords are changed, certificates renewed.
    """
    return str(getattr(error, "sqlstate", None)).startswith(("28", "3D")) or without_tls(error)


class Door:
    """Makes the connections of a pool. After a failure one at a time knocks, less and less often; the others are told
    at once that nobody opens.

    Attributes:
        shut: nobody knocks at all, for the lease knows that the database does not answer.
    """

    def __init__(self) -> None:
        self.shut = False
        self._failures = 0
        self._knocking = False
        self._next_at = float("-inf")
        self._last = ""

    async def connect(self, *args: Any, **given: Any) -> Any:
        """What `asyncpg.connect` does; raises ShutOut without having knocked, or for a refusal."""
        if self.shut or (self._failures and (self._knocking or time.monotonic() < self._next_at)):
            raise ShutOut(f"the database does not let us in: {self._last or 'it does not answer'}")
        self._knocking = True
        try:
            connection = await asyncpg.connect(*args, **given)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(error)
            if is_refusal(error):
                raise ShutOut(f"refused: {self._last}") from None
            raise
        finally:
            self._knocking = False
        self._failures, self._last = 0, ""
        return connection

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._next_at = time.monotonic() + backoff(self._failures, AGAIN_SECONDS)
        sqlstate = getattr(error, "sqlstate", None)
        said = f"{type(error).__name__} {sqlstate or ''}".strip()
        if is_refusal(error) and said != self._last:
            _log.error("database.refused", error=type(error).__name__, sqlstate=sqlstate)
        self._last = said
