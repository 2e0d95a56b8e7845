"""D.1: one release takes over from another under load, with a migration in the middle; and back."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.heart import until
from tests.processes import Daemon
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.place import place as another_place
from tests.stress.postgres import DEFAULT_TERMS, FALSE_RESCUES, completed, errors_said, longest_gap
from tests.stress.releases import Release, former, this, to_come
from tests.stress.workload import MIXED, account, create_steps, produce

PAIR = 2  # daemons of one release
WAITING = 200
PATIENCE = 120.0  # seconds for that, on a busy machine
EACH = 20  # jobs that each daemon has to complete before the deploy goes on
BY_EACH = """
    select count(*) = cardinality($1::int[]) from (
      select p.pid from evidence.hist h join worker.process p on p.id = h.process
      where h.new_status = 'completed' and h.at > $2 and p.pid = any ($1) group by 1 having count(*) >= $3) done
"""
HALFWAY = "select count(*) = $1 from worker.migration where name like 'migrations/%'"
REASONS = """
    select string_agg(distinct left(said ->> 'message', 100), '; ')
    from worker.job_queue j, jsonb_array_elements(j.errors) said where j.attempt > 1
"""
SCHEMA = "select md5(string_agg(name || digest, ' ' order by name)) from worker.migration"


@experiment("10-rolling-deploy", nightly=13, limit=400)
async def rolling_deploy(outer: Place, report: Report) -> None:
    """From the release before the newest migration, out of the history, to this one, and back."""
    await deployed(outer, report, former(outer.folder / "former"), this(outer.folder / "this"))


@experiment("10-next-release", nightly=20, limit=400)
async def next_release(outer: Place, report: Report) -> None:
    """From this release to one with a migration more that serves it, and back: both work on the later schema."""
    now = this(outer.folder / "this")
    await deployed(outer, report, now, to_come(now, outer.folder / "next", breaks=False))


@experiment("10-breaking-release", nightly=13, limit=400)
async def breaking_release(outer: Place, report: Report) -> None:
    """From this release to one that does not serve it any more, and back: this one refuses to start."""
    now = this(outer.folder / "this")
    await deployed(outer, report, now, to_come(now, outer.folder / "next", breaks=True))


async def deployed(outer: Place, report: Report, old: Release, new: Release) -> None:
    """The deploy, and back, under load; then the checker."""
    seed = outer.chance.randrange(1_000_000)
    async with another_place(outer.server, outer.folder, seed, old.migrate) as place:
        await create_steps(place)
        deploy = Deploy(place, report, old, new, place.configure(MIXED, DEFAULT_TERMS))
        olds = await deploy.started(old)
        async with traffic(place) as sent:
            await deploy.forth(olds)
        report.figures |= {"enqueues": sent.calls, "enqueues_failed": sent.failed, "longest_enqueue_s": sent.longest}
        report.expect(not sent.failed, f"producers were refused: {sent.failed}")
        report.expect(await place.settled(60), "not all jobs are final after 60 s")
        await judged(place, report, deploy.began)


async def judged(place: Place, report: Report, began: object) -> None:
    """What the checker says, and what was said and tried again on the way."""
    report.figures |= {
        "errors_said": ", ".join(f"{event} {count}" for event, count in errors_said(place).items()) or 0,
        "tried_again": await place.connection.fetchval("select count(*) from worker.job_queue where attempt > 1"),
        "tried_again_for": await place.connection.fetchval(REASONS) or 0,
        "longest_gap_s": round(await longest_gap(place, began), 2),
        "false_rescues": await place.connection.fetchval(FALSE_RESCUES),
    }
    report.expect(report.figures["false_rescues"] == 0, "somebody was declared dead, and nobody had died")
    await completed(place, report)
    await place.judge(report)
    await account(place, report)


@dataclass
class Deploy:
    """Two releases over one database."""

    place: Place
    report: Report
    old: Release
    new: Release
    config: Path
    began: object = None

    async def forth(self, olds: list[Daemon]) -> None:
        """New daemons come too early; the migration; both releases side by side; the old ones go."""
        self.began = await self._now()
        await self.refused(self.new, "run `worker migrate`")
        await self.work(olds)
        works = self.old.works_on(self.new)
        self.report.figures["old_release_on_the_new_schema"] = "works" if works else "refuses to start (3)"
        early = await self.migrated_slowly(works)
        await self.work(olds)  # who runs already goes on
        news = [*early, *await self.started(self.new)]
        await self.work(olds + news)
        await self.stopped(olds)
        await self.work(news)
        await (self.back(news) if works else self.no_way_back(news))

    async def migrated_slowly(self, works: bool) -> list[Daemon]:
        """The migration, held up half-way while daemons of both releases start: the new one waits for its end."""
        began = time.monotonic()
        async with open_transaction(self.place) as ended:
            migrating = asyncio.create_task(self.migrated(self.new, 0))
            await until(self.place.connection, HALFWAY, len(list(self.new.folder.glob("sql/migrations/*.sql"))))
            old, new = (release.spawn(self.place, self.config) for release in (self.old, self.new))
            await self.work([each for each in self.place.alive() if each not in (old, new)])
            await ended()
            await migrating
        self.report.figures["migration_s"] = round(time.monotonic() - began, 2)
        await self.place.started(new)
        if works:
            await self.place.started(old)
            await self.stopped([old])
        else:
            await self.refuses(old, "too new")
        self.report.injected += 1
        return [new]

    async def back(self, news: list[Daemon]) -> None:
        """The old release again, on the schema of the new one; then the new one for good."""
        await self.unchanged(self.old, 0, "serves this one")
        olds = await self.started(self.old)
        await self.work(olds + news)
        await self.stopped(news)
        await self.work(olds)
        await self.started(self.new)
        await self.stopped(olds)

    async def no_way_back(self, news: list[Daemon]) -> None:
        """The old release says that it does not fit, touches nothing, and the new one goes on."""
        await self.unchanged(self.old, 3, "too new")
        for _ in range(PAIR):
            await self.refused(self.old, "too new")
        await self.work(news)

    async def started(self, release: Release) -> list[Daemon]:
        daemons = [release.spawn(self.place, self.config) for _ in range(PAIR)]
        await self.place.started(*daemons)
        self.report.injected += PAIR
        return daemons

    async def stopped(self, daemons: list[Daemon]) -> None:
        """One after the other, as a platform does."""
        for each in daemons:
            each.send(signal.SIGTERM)
            code = await asyncio.to_thread(each.ends)
            self.report.expect(code == 0, f"SIGTERM: ended with {code}")
            self.report.injected += 1

    async def refused(self, release: Release, why: str) -> None:
        """A daemon that does not start, and says why."""
        await self.refuses(release.spawn(self.place, self.config), why)

    async def refuses(self, daemon: Daemon, why: str) -> None:
        code = await asyncio.to_thread(daemon.ends)
        self.report.expect((code, why in daemon.said()) == (3, True), f"ended with {code}: {daemon.said()[-300:]}")
        self.report.injected += 1

    async def migrated(self, release: Release, expected: int, why: str = "") -> None:
        code, said = await release.migrate(self.place.dsn, self.config)
        self.report.expect(code == expected and why in said, f"migrate ended with {code}: {said[-300:]}")
        self.report.injected += 1

    async def unchanged(self, release: Release, expected: int, why: str) -> None:
        """A migration that has nothing to do, or may not do it."""
        before = await self.place.connection.fetchval(SCHEMA)
        await self.migrated(release, expected, why)
        after = await self.place.connection.fetchval(SCHEMA)
        self.report.expect(after == before, "the old release changed the schema of the new one")

    async def work(self, daemons: list[Daemon]) -> None:
        """Wait until each of them has completed some jobs from now on."""
        pids = [each.pid for each in daemons]
        await until(self.place.connection, BY_EACH, pids, await self._now(), EACH, seconds=PATIENCE)

    async def _now(self) -> object:
        return await self.place.connection.fetchval("select clock_timestamp()")


@asynccontextmanager
async def open_transaction(place: Place) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Somebody's open transaction that has read a table of the queue, and what ends it."""
    connection = await asyncpg.connect(place.dsn)
    try:
        await connection.execute("begin; select from worker.job_step limit 1")
        yield lambda: connection.execute("commit")
    finally:
        await connection.close(timeout=5)


@dataclass
class Sent:
    """What producers lived through."""

    calls: int = 0
    failed: int = 0
    longest: float = 0.0


@asynccontextmanager
async def traffic(place: Place) -> AsyncIterator[Sent]:
    """Keep jobs waiting, from a connection that is not the experiment's own."""
    sent = Sent()
    producer = Place(place.server, place.dsn, place.folder, await asyncpg.connect(place.dsn), 1)
    task = asyncio.create_task(_produce_on(producer, sent))
    try:
        yield sent
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await producer.connection.close(timeout=5)


async def _produce_on(producer: Place, sent: Sent) -> None:
    waiting = "select count(*) from worker.job_queue where status = 'pending'"
    while True:
        began = time.monotonic()
        if await producer.connection.fetchval(waiting) < WAITING:
            try:
                await produce(producer, 50)
            except asyncpg.PostgresError:
                sent.failed += 1
            sent.calls += 1
            sent.longest = max(sent.longest, round(time.monotonic() - began, 2))
        await asyncio.sleep(0.05)
