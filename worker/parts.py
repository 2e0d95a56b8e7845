"""The parts of one life of the process, and how they are wired."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import structlog

from worker.beat import Chores
from worker.bell import Bell
from worker.breaker import Breakers
from worker.children import Children
from worker.config import Config, JobType, secret_values
from worker.connection import connect
from worker.context import Context
from worker.database import DATABASE_ERRORS, Database
from worker.errors import CancelRequested, Interrupted, ProcessDead
from worker.executor import Executor
from worker.handlers import build, fallbacks
from worker.health import CHECK_EVERY, SAMPLE_EVERY, Gauges, tell_profile
from worker.job import Job
from worker.job_queue import JobQueue, try_claim
from worker.lease import Lease
from worker.listener import Listener
from worker.metrics import Metrics
from worker.outbound import Outbound
from worker.permits import Permits
from worker.poller import Poller
from worker.prune import PRUNE_SECONDS, prune
from worker.pulse import Pulse, Rounds
from worker.report import Reporter
from worker.results import RESULTS_EVERY, Results
from worker.schedule import Schedules
from worker.settler import Settler
from worker.tally import TALLY_EVERY, Tally
from worker.timetable import Timetable
from worker.traces import Traces
from worker.upkeep import Rescue, every, sweep
from worker.watchdog import Watched, place

ROUND_SECONDS = 5.0  # beyond three polls, after which claims count as stuck
PROBE_SECONDS = 10.0
BACKUP_POLLS = 60  # after which sweep and rescue come though no beat called for them
SWEEP_SECONDS = 1.0  # between sweeps that beats call for

_log = structlog.get_logger()


class Parts:
    """Everything that works under one process id.

    Args:
        dead: to be set when the database says that this process was declared dead.
        schedules: names of those that it fires.
        tally: of the process, over all its lives; `traces` too.
    """

    def __init__(
        self,
        config: Config,
        types: Mapping[str, JobType],
        database: Database,
        metrics: Metrics,
        *,
        me: int,
        dead: asyncio.Event,
        schedules: Sequence[str] = (),
        tally: Tally | None = None,
        traces: Traces | None = None,
    ) -> None:
        self._config = config
        self._types = types
        self._database = database
        self._metrics = metrics
        self._dead = dead
        self.sweeping = asyncio.Event()
        self._swept = float("-inf")
        self.outbound = Outbound()
        self.children = Children(config.worker.processes, metrics, secret_values(config))
        self.queue = JobQueue(database.control, me, config.claimed)
        rates = {name: (rate.limit, rate.per) for name, rate in config.rate.items()}
        self._permits = Permits(self.queue, rates)
        self.settler = Settler(self.queue, metrics.database_error)
        self.reporter = Reporter(metrics, types, config.worker.log_slow)
        self._traces = traces or Traces()
        self._watch = self._traces.watch(self.reporter)
        self._calls = Breakers(self._traces.sender(self.outbound), self.reporter.breaker)
        self.timetable = Timetable(database.control, schedules)
        self.schedules = Schedules(self.timetable, database.ways[1], config.database.search_path, metrics)
        self.gauges = Gauges(self.queue, database.control, metrics)
        self.results = Results(self.queue, metrics, {name: job.gauges for name, job in types.items()})
        self._tally = tally or Tally(metrics)
        metrics.slots.set(config.worker.concurrency)

    async def build(self) -> None:
        """Make what needs the database: handlers, and who runs them.

        Raises:
            DeclarationError: a declared function or coroutine is missing or takes other arguments.
        """
        settings = self._config.worker
        handlers = await build(self._types, self._database.steps, self._calls)
        self.executor = Executor(
            self._types,
            self._traces.handlers(handlers),
            self._context,
            settler=self.settler,
            reporter=self.reporter,
            concurrency=settings.concurrency,
            connections=self._config.database.steps,
            fallbacks=self._traces.handlers(fallbacks(self._types, self._calls)),
            master=settings.enabled,
        )
        self.listener = Listener(self._database.ways[1], self.queue.me, self._ring, self.queue.test_ring, self._heard)
        self.bell = Bell(self.queue, settings.poll, lambda: self.listener.hearing and settings.wake == "ring")
        self.poller = Poller(
            self.queue,
            self.executor,
            self.bell,
            self._metrics,
            concurrency=settings.concurrency,
            prefetch=settings.prefetch,
            graphs=[name for name, each in self._types.items() if each.kind == "steps"],
            connections=self._config.database.steps,
            limited=[name for name, each in self._types.items() if each.limit is not None],
            fair=[name for name, each in self._types.items() if each.fair],
        )
        self.rescue = Rescue(self.queue, self.poller)
        self.rounds = Rounds(self.poller, self.poller.slots, 3 * settings.poll + ROUND_SECONDS)
        self.pulse = Pulse(self._metrics, self.executor.types, self.executor.ended, self._pulsed, self.poller.begun)

    def duties(self, scraped: bool) -> list[Coroutine[Any, Any, None]]:
        """The side duties, not begun; gauges are sampled only where somebody can read them."""
        poll = self._config.worker.poll
        duties = [
            self.settler.run(),
            self.listener.run(),
            self.pulse.run(),
            tell_profile(self._database, self.listener),
            self._every(BACKUP_POLLS * poll, self._sweep, self.sweeping),
            self._every(PRUNE_SECONDS, self._prune),
            self._every(TALLY_EVERY, self.tell_counts),
            self.until_dead(self._every(BACKUP_POLLS * poll, self.rescue.run, self.rescue.hurry)),
        ]
        if self.timetable.names:
            duties.append(self.schedules.run())
        if scraped:
            duties += [
                self._every(SAMPLE_EVERY, self.gauges.sample),
                self._every(CHECK_EVERY, self.gauges.check_schema),
            ]
            if self.results:
                duties.append(self._every(RESULTS_EVERY, self.results.sample))
        return duties

    def watched(self, polling: "asyncio.Task[None]", lease: Lease) -> Watched:
        """What the watchdog is to know of this life."""

        def stands() -> dict[str, Any]:
            looked = round(time.monotonic() - self.poller.looked_at, 1)
            return {"stands": "claims", "at": place(polling), "seconds": looked, "in_hand": self.poller.in_hand,
                    "lease_held": lease.held, "idle_connections": self._database.control.get_idle_size()}  # fmt: skip

        return Watched(lambda: not self.queue.types or self.rounds.turning(), self._could_claim, stands)

    async def _could_claim(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                for way in set(self._database.ways):
                    connection = await connect(way, "probe")
                    try:
                        await try_claim(connection, self.queue.me, self.queue.types)
                    finally:
                        connection.terminate()
        except DATABASE_ERRORS as error:
            # Declared dead, and the lease's thread has not noticed: that is no fault of the database.
            return getattr(error, "sqlstate", None) == "WK006"
        return True

    def claims_go_round(self) -> bool:
        """Whether claims are made as they should; where everything is switched off none should."""
        return not self.queue.types or self.rounds.lately()

    def end_all(self) -> None:
        """Interrupt what runs: this process was declared dead."""
        self.poller.interrupt(self.executor.running(), Interrupted("this process was declared dead"))

    def cancel(self, claims: list[int]) -> None:
        """Somebody asked for the end of these."""
        self.poller.interrupt(claims, CancelRequested("cancelled"))

    def tend(self, chores: Chores) -> None:
        """What a beat saw that waits to be done."""
        if chores.strays and time.monotonic() - self._swept >= SWEEP_SECONDS:
            self._swept = time.monotonic()
            self.sweeping.set()
        if chores.orphans:
            self.rescue.hurry.set()
        if chores.due is not None:
            self.bell.due(chores.due)
        if chores.next_schedule is not None:
            self.schedules.due(chores.next_schedule)

    def fence(self) -> None:
        """No confirmed beat."""
        _log.warning("lease.fenced", in_hand=self.poller.in_hand)
        self._database.shut(True)
        self.poller.shut()

    def confirm(self) -> None:
        """The lease is confirmed again."""
        _log.info("lease.confirmed")
        self._database.shut(False)
        self.poller.open()

    async def until_dead(self, duty: Coroutine[Any, Any, None]) -> None:
        """A duty that may hear from the database that this process is dead, before the lease's next beat does."""
        try:
            await duty
        except ProcessDead:
            self._dead.set()

    def _every(self, seconds: float, duty: Any, hurry: asyncio.Event | None = None) -> Coroutine[Any, Any, None]:
        return every(seconds, duty, hurry, self._metrics.database_error)

    async def _sweep(self) -> None:
        await sweep(self.queue, self.bell.ring)

    async def _prune(self) -> None:
        await prune(self.queue, self._config.worker.keep)

    async def tell_counts(self, last: bool = False) -> None:
        """Add what was counted here to what all daemons counted."""
        await self._tally.push(self.queue, last)

    def _pulsed(self) -> None:
        self.rounds.note()
        self.reporter.summary()

    def _ring(self, for_me: bool) -> None:
        self.bell.heard(for_me)

    def _heard(self, seconds: float | None) -> None:
        self._metrics.listen_roundtrip.set(float("nan") if seconds is None else seconds)

    def _context(self, jobs: Sequence[Job]) -> Context:
        settings = self._types[jobs[0].job_type].settings
        return Context(jobs, settings, self.queue, self._database.steps, self._watch, sender=self._calls,
                       children=self.children, permits=self._permits)  # fmt: skip
