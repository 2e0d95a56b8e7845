"""The daemon: one life after the other, until it is asked to stop.

A process that others declared dead comes back under a new id.
"""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry

from worker.config import Config, secret_values
from worker.database import DATABASE_ERRORS, is_transient
from worker.door import is_refusal
from worker.errors import ProcessDead, Stuck
from worker.life import Claiming, Life, release
from worker.log import register_secrets
from worker.metrics import Metrics
from worker.pulse import Readiness
from worker.stop import Stop, beside, first
from worker.tally import Tally
from worker.tracing import traces
from worker.waiting import wait_until_up
from worker.watchdog import Watchdog
from worker.way import Way, explore

_log = structlog.get_logger()


class Web(Protocol):
    """The HTTP side as the daemon sees it: it answers until it is cancelled, and asks the database nothing."""

    async def serve(self, registry: CollectorRegistry, readiness: Readiness) -> None: ...


async def run(
    config: Config,
    stop: Stop,
    ready: Callable[[int], None] = lambda me: None,
    instead: Claiming | None = None,
    web: Web | None = None,
) -> None:
    """Run the daemon until `stop` is asked.

    Args:
        ready: called with the process's id once it claims.
        instead: claims in place of the poller's endless loop; when it returns, the daemon stops.
        web: served from before the database is reached until the last job is handed back.

    Raises:
        DatabaseUnreachable, SchemaError, DeclarationError: at start only.
        Stuck: the watchdog ended it.
    """
    register_secrets(secret_values(config))
    metrics, readiness = Metrics.of(config, release()), Readiness()
    watchdog = Watchdog(stop, config.worker.grace)
    life = partial(
        Life, config, instead=instead, metrics=metrics, readiness=readiness if web else None, watchdog=watchdog,
        tally=Tally(metrics), traces=(tracing := traces(config.environment, release())),
    )  # fmt: skip
    work = beside(_lives(life, *_urls(config), stop=stop, ready=ready), watchdog.run())
    try:
        await (beside(work, web.serve(metrics.registry, readiness)) if web else work)
    finally:
        await tracing.close()
    if watchdog.bitten:
        raise Stuck("claims stood still although the database answers; see service.watchdog in the log")
    _log.info("service.stopped")


async def _lives(
    life: Callable[[tuple[Way, Way]], Life], url: str, direct: str, *, stop: Stop, ready: Callable[[int], None]
) -> None:
    begun = asyncio.Event()

    def begins(me: int) -> None:
        begun.set()
        ready(me)

    while True:
        await first(wait_until_up(url, refusals=begun.is_set()), stop.asked)
        if stop.asked.is_set():
            break
        try:
            ways = await first(_explored(url, direct), stop.asked)
            if ways is None:
                break
            await life(ways).run(stop, begins)
        except ProcessDead:
            _log.warning("service.declared_dead", next="starting anew under a new id")
        except DATABASE_ERRORS as error:
            if not is_transient(error) and not (begun.is_set() and is_refusal(error)):
                raise
            _log.warning("service.start_again", error=type(error).__name__)
            await first(asyncio.sleep(random.uniform(0.5, 1.5)), stop.asked)


async def _explored(url: str, direct: str) -> tuple[Way, Way]:
    """The way of the control connections, and that of all who need a session."""
    way = await explore(url)
    return way, way if direct == url else await explore(direct)


def _urls(config: Config) -> tuple[str, str]:
    """The address for control connections, and the one for those that need a session."""
    assert config.database.url is not None  # checked by load
    url = config.database.url.get_secret_value()
    direct = config.database.direct_url
    return url, direct.get_secret_value() if direct else url
