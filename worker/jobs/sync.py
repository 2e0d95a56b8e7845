"""The sync manager's job: a user's orders, page by page from a provider into `sync.sync_orders`, then looked through.

    [job.sync]
    python = "worker.jobs.sync:sync"

Each page is a step: the orders and the checkpoint are one transaction, so an attempt goes on where the last one stood.
The detection is a job of its own. It is waited for in place for a moment, and then asleep in the queue, where the sync
takes nobody's place.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from worker import Completed, Context, InvalidJob, Outcome, Permanent, Snoozed
from worker.jobs.sync_provider import AuthExpired, BadPage, Provider, Wait

_OPEN = "select * from sync.open_run($1)"
_DETECTION = "select sync.detection($1, make_interval(secs => $2))"


@dataclass(frozen=True, slots=True)
class Terms:
    """`settings` of the job type.

    Args:
        providers: the address of each provider, by the name that accounts and payloads use.
        page_size: orders that a page is asked for.
        page_bytes: the largest page that is read.
        answer_within: seconds for one answer.
        wait: seconds to leave a provider alone that asks for it without saying how long.
        wait_most: seconds, however long it asks for.
        permit: the name of a `[rate.NAME]` that every request is counted against.
        most_pages: of one sync; a provider that never ends is an error.
        detect_within: seconds that the detection is waited for.
        detect_look: seconds from one look at it to the next.
        detect_stay: seconds that are waited in place; then the sync sleeps in the queue
        detect_again: for so many seconds at a time.
    """

    providers: Mapping[str, str] = field(default_factory=dict)
    page_size: int = 100
    page_bytes: int = 1_000_000
    answer_within: float = 10.0
    wait: float = 60.0
    wait_most: float = 600.0
    permit: str | None = None
    most_pages: int = 10_000
    detect_within: float = 60.0
    detect_look: float = 0.5
    detect_stay: float = 10.0
    detect_again: float = 10.0


class Run(NamedTuple):
    """What `sync.open_run` answers with."""

    user_id: str
    provider: str
    token: str | None
    trouble: str | None
    page: int
    cursor: str | None
    orders: int
    fetched: bool
    percent: int
    detecting: bool


async def sync(context: Context) -> Outcome:
    """The job: connect (10 %), fetch (30 %), stored (60 %), detect (90 %), count (95 %), done (100 %).

    Returns:
        Completed with the counts of `sync.count_rows` and how the detection stood; Snoozed while it waits for the
        detection, or for a provider that asks to be left alone.

    Raises:
        AuthExpired, InvalidJob: for good.
        ProviderDown, BadPage, OutboundError: to be tried again, from the last page that was stored.
        LostClaim: a status could not be written, because the sync is somebody else's by now.
    """
    terms = _terms(context.settings)
    under_way = _Sync(context, terms, await _opened(context))
    try:
        return await under_way.go_on()
    except Wait as wait:
        return await under_way.wait(wait)


class _Sync:
    """One attempt of a sync: what is done, and what is told of it."""

    def __init__(self, context: Context, terms: Terms, run: Run) -> None:
        self._context = context
        self._terms = terms
        self._run = run
        self._page, self._orders, self._percent = run.page, run.orders, run.percent
        self._phase = "connecting"

    async def go_on(self) -> Outcome:
        if not self._run.fetched:
            provider = await self._connect()
            try:
                await self._fetch(provider)
            except AuthExpired:
                # For each attempt anew: the user may have connected again since, and a person retried the sync.
                await self._step(f"reject_{self._context.job.claim}", "sync.reject_token")
                raise
        state = await self._detect()
        return Snoozed(self._terms.detect_again, keep_steps=True) if state == "running" else await self._count(state)

    async def wait(self, wait: Wait) -> Outcome:
        """Not this sync's fault: the attempt does not count."""
        delay = min(self._terms.wait if wait.delay is None else wait.delay, self._terms.wait_most)
        await self._tell(self._percent, self._phase, waits_for=f"RateLimited: {wait}")
        return Snoozed(delay, keep_steps=True)

    async def _connect(self) -> Provider:
        run, terms = self._run, self._terms
        await self._tell(10, "connecting")
        if run.token is None or run.trouble:
            raise AuthExpired(f"the token for {run.provider} is {run.trouble}")
        if run.provider not in terms.providers:
            raise InvalidJob(f"there is no provider {run.provider!r} in the settings of {self._context.job.job_type}")
        address, permit = terms.providers[run.provider], terms.permit
        return Provider(
            self._context, address, run.token, timeout=terms.answer_within, most=terms.page_bytes, permit=permit
        )

    async def _fetch(self, provider: Provider) -> None:
        if self._page == 0:
            await provider.check()
        await self._tell(30, "fetching")
        cursor = self._run.cursor
        while True:
            page = await provider.page(cursor, self._terms.page_size)
            if page.next_cursor == cursor and cursor is not None:
                raise BadPage(f"page {self._page + 1} leads to itself")
            if self._page >= self._terms.most_pages:
                raise Permanent(f"the provider has more than {self._terms.most_pages} pages")
            stored = await self._step(
                f"page_{self._page + 1}", "sync.store_page",
                page=self._page + 1, cursor=cursor, next_cursor=page.next_cursor, orders=page.orders,
            )  # fmt: skip
            self._page, self._orders, cursor = self._page + 1, self._orders + stored["orders"], page.next_cursor
            if cursor is None:
                break
            await self._tell(30, "fetching", of=page.total)
        await self._tell(60, "stored")

    async def _detect(self) -> str:
        detection = await self._step("detect", "sync.begin_detection")
        await self._tell(90, "detecting", detection=detection)
        stays_until = time.monotonic() + self._terms.detect_stay
        # Another process may run it, so there is no event to wait for.
        while (state := await self._detection()) == "running" and time.monotonic() < stays_until:  # noqa: ASYNC110
            await asyncio.sleep(self._terms.detect_look)
        if state not in ("running", "completed"):
            self._context.log.warning("sync.not_detected", detection=detection, state=state)
        return state

    async def _detection(self) -> str:
        async with self._context.connection() as connection:
            return str(await connection.fetchval(_DETECTION, self._context.job.id, self._terms.detect_within))

    async def _count(self, detection: str) -> Completed:
        await self._tell(95, "counting")
        counted = await self._step("count", "sync.count_rows")
        await self._tell(100, "done")
        return Completed({**counted, "detection": detection})

    async def _step(self, name: str, function: str, **arguments: Any) -> Any:
        return await self._context.step(name, function, {"sync_id": self._context.job.id, **arguments})

    async def _tell(self, percent: int, phase: str, **more: Any) -> None:
        # Never backwards, also after a restart: what was reached is stored.
        self._percent, self._phase = max(self._percent, percent), phase
        told = {"percent": self._percent, "stage": phase, "page": self._page, "orders": self._orders, **more}
        await self._context.progress(phase, **{key: value for key, value in told.items() if value is not None})


async def _opened(context: Context) -> Run:
    async with context.connection() as connection:
        row = await connection.fetchrow(_OPEN, context.job.id)
    if row is None:
        raise InvalidJob("the payload of a sync names its user_id")
    return Run(**row)


def _terms(settings: Mapping[str, Any]) -> Terms:
    try:
        return Terms(**settings)
    except TypeError as error:
        raise Permanent(f"settings of the sync: {error}") from None
