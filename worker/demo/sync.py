"""The demo "sync": a user's orders come in page by page from a provider that fails in every way, one sync at a time; a
daemon is killed in the middle, a sync is stopped in the middle of its SQL, and everything that is told is counted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from worker import migrations
from worker.demo import tables
from worker.demo.daemon import Daemon, running
from worker.demo.failure import must
from worker.demo.interrupt import interruptible
from worker.demo.place import connected, place
from worker.demo.provider import Provider, make_orders, owed
from worker.demo.receiver import Reply
from worker.demo.sync_desk import LOOK_SECONDS, WAIT_SECONDS, Desk
from worker.demo.teller import Teller

ORDERS, SIZE, SEED = 230, 25, 11
CALLERS = 20  # who start a sync at the same moment
CONFIG = """\
environment = "demo"

[database]
url = "$DATABASE_URL"

[retry]
first = "200ms"
max = "1s"

[job.sync]
python = "worker.jobs.sync:sync"
settings = {{ providers = {{ seller = "{origin}" }}, answer_within = 3, permit = "seller" }}
unique_key = "sync:{{user_id}}"
unique_while = "active"
limit = 5
then_failed = ["sync_alert"]

[job.sync_detect]
arguments = {{ sync_id = "sync_id" }}
steps = {{ detect = {{ sql = "sync.detect" }} }}

[job.sync_alert]
arguments = {{ parent = "parent", error = "error" }}
steps = {{ record = {{ sql = "sync.record_alert" }} }}

[rate.seller]
limit = 600
per = "1m"
"""


async def play(teller: Teller) -> dict[str, Any]:
    """The whole story; SIGTERM and Ctrl-C end it early and leave nothing behind."""
    return await interruptible(_story(teller))


async def _story(teller: Teller) -> dict[str, Any]:
    began = time.monotonic()
    teller.title("a fresh database, and a provider")
    async with place(teller) as url, Provider(make_orders(SEED, ORDERS), SIZE) as provider:
        await migrations.migrate(url)
        async with connected(url) as connection:
            told = await _scenes(_Scenes(connection, url, provider, teller))
    seconds = round(time.monotonic() - began, 2)
    teller.line(f"all of it took {seconds:g} s")
    return told | {"seconds": seconds}


async def _scenes(scenes: "_Scenes") -> dict[str, Any]:
    await scenes.install()
    async with scenes.daemon() as first:
        told = {
            "refused": await scenes.without_a_token(),
            "sync": await scenes.through_faults(),
            "starts": await scenes.all_at_once(),
        }
        kill = await scenes.kill(first)
    async with scenes.daemon():
        return told | {
            "kill": await scenes.resume(kill),
            "cancel": await scenes.cancel(),
            "rejected": await scenes.rejected(),
            "statistics": await scenes.count(),
        }


class _Scenes(Desk):
    """Each does one thing and says what came of it."""

    def __init__(self, connection: asyncpg.Connection, url: str, provider: Provider, teller: Teller) -> None:
        super().__init__(connection, url)
        self._provider = provider
        self._teller = teller

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Daemon]:
        """A daemon, ready to claim."""
        async with running(self._url, CONFIG.format(origin=self._provider.origin)) as started:
            await self.until("select exists (select from worker.type_status where job_type = 'sync' and daemons > 0)",
                              otherwise="the daemon does not start", daemon=started)  # fmt: skip
            yield started

    async def install(self) -> None:
        """The shipped SQL."""
        applied = await migrations.install(self._connection, "sync")
        await tables.apply(self._connection, "sync")
        orders, pages = len(self._provider.orders), self._provider.pages
        self._teller.line(f"installed the sync manager ({len(applied)} files); the provider has {orders} orders")
        self._teller.line(f"on {pages} pages")

    async def without_a_token(self) -> str:
        """Who has no token is refused."""
        self._teller.title("no token, no sync")
        sqlstate = await self.refused("ann")
        await self.connect("ann")
        must(sqlstate[0] == "SY001", f"a start without a token came to {sqlstate}")
        self._teller.line(f"sync.start('ann') is refused with {sqlstate[0]}: there is no token; sync.connect keeps one")
        return sqlstate[0]

    async def through_faults(self) -> dict[str, Any]:
        """A sync whose provider fails in every way."""
        self._teller.title("a sync, and a provider that fails")
        self._provider.trouble(2, Reply(500))
        self._provider.trouble(4, self._provider.truncated(4))
        self._provider.trouble(6, Reply(429, headers={"retry-after": "1"}))
        self._provider.trouble(8, Reply(manner="hang"))
        self._teller.line("page 2 answers 500, page 4 breaks off, page 6 says 429, page 8 says nothing")
        sync = await self.start("ann")
        seen = await self._watch("ann", sync)
        counted = await self.json("select sync.results('ann', $1)", sync)
        asked = sum(self._provider.asked.values())
        attempts = await self.ask("select attempt from worker.job_queue where id = $1", sync)
        must(counted["orders"] == ORDERS, f"it stored {counted['orders']} orders")
        must(counted["claims"] == owed(self._provider.orders), f"it found {counted['claims']} claims")
        self._teller.line(f"completed at attempt {attempts}: {counted['orders']} orders on {counted['pages']} pages,")
        self._teller.line(f"each stored once, asked for {asked} times; {counted['claims']} claims were detected")
        return {"progress": seen, "orders": counted["orders"], "pages": counted["pages"], "asked": asked,
                "claims": counted["claims"], "attempts": attempts}  # fmt: skip

    async def all_at_once(self) -> dict[str, Any]:
        """Many starts of one user."""
        self._teller.title(f"{CALLERS} starts at once")
        await self.connect("bea")
        came = await asyncio.gather(*(self.caller("bea") for _ in range(CALLERS)))
        started = [answer for answer in came if isinstance(answer, int)]
        refused = [answer for answer in came if answer == ("SY003", str(started[0]))]
        must((len(started), len(refused)) == (1, CALLERS - 1), f"they came to {came}")
        self._teller.line(f"one began sync {started[0]}; {len(refused)} were refused with SY003, which names it")
        await self.ended("bea", started[0])
        return {"runs": len(started), "refusals": len(refused)}

    async def kill(self, daemon: Daemon) -> tuple[int, int]:
        """The daemon is killed while it fetches; answers with the sync and the page it stood at."""
        self._teller.title("kill -9 in mid-fetch")
        await self.connect("carl")
        self._provider.asked.clear()
        self._provider.trouble(6, Reply(manner="hang"))
        sync = await self.start("carl")
        await self.until("select demo.pages_of('carl') = 5", otherwise="it does not come to page 6", daemon=daemon)
        await self.becomes(lambda: self._provider.asked[6] > 0, "it does not ask for page 6")
        await daemon.kill()
        now = await self.json("select sync.status('carl')")
        self._teller.line(f"killed at page 6; the row says {now['status']}, {now['progress']} %, {now['page']} pages")
        return sync, now["page"]

    async def resume(self, at: tuple[int, int]) -> dict[str, Any]:
        """Another daemon goes on at the checkpoint."""
        sync, page = at
        await self.ended("carl", sync)
        twice = [number for number, times in self._provider.asked.items() if times > 1]
        must(twice == [6], f"pages {twice} were asked for again")
        counted = await self.json("select sync.results('carl', $1)", sync)
        must(counted["added"] == ORDERS, f"it stored {counted['added']} orders")
        self._teller.line(f"another daemon went on at page {page + 1}: no page was stored twice, none is missing")
        return {"page": page, "asked_again": len(twice), "orders": counted["orders"]}

    async def cancel(self) -> dict[str, Any]:
        """A cancel ends the statement that runs."""
        self._teller.title("cancel, in the middle of its SQL")
        await self.connect("dora")
        await self.ask("select demo.begin_dozing()")
        sync = await self.start("dora")
        await self.until("select demo.dozers() = 1", otherwise="its SQL does not run")
        began = time.monotonic()
        await self.ask("select sync.cancel('dora')")
        await self.until("select status = 'cancelled' from worker.job_queue where id = $1", sync,
                          otherwise="it is not cancelled")  # fmt: skip
        seconds = round(time.monotonic() - began, 3)
        must(await self.ask("select demo.dozers()") == 0, "its SQL runs on")
        self._teller.line(f"{seconds:g} s after sync.cancel its statement is ended and the row says cancelled")
        return {"seconds": seconds, "stored": await self.ask("select demo.pages_of('dora')")}

    async def rejected(self) -> dict[str, Any]:
        """A token that counts no more ends a sync for good."""
        self._teller.title("a token that counts no more")
        await self.connect("emil", "revoked")
        sync = await self.start("emil")
        await self.until("select count(*) > 0 from sync.alerts where sync_id = $1", sync, otherwise="nobody is alerted")
        error = (await self.json("select sync.status('emil')"))["error"]
        self._teller.line(f"failed: {error['code']}, next action {error['next_action']}; an alert was raised")
        return {"code": error["code"], "next_action": error["next_action"]}

    async def count(self) -> dict[str, Any]:
        """What the whole of it came to."""
        self._teller.title("statistics")
        row = await self._connection.fetchrow(
            "select total, successful, failed, cancelled, running from sync.statistics()"
        )
        told = {name: int(value) for name, value in dict(row or {}).items()}
        self._teller.line(", ".join(f"{value} {name}" for name, value in told.items()))
        health = await self.json("select sync.queue_status()")
        self._teller.line(f"health: {health['health']['status']}, {health['health']['success_rate']:g} % completed")
        return told

    async def _watch(self, user: str, sync: int) -> list[int]:
        """Follow a sync to its end; answers with the percentages that were seen."""
        seen: list[tuple[Any, ...]] = []
        end = time.monotonic() + WAIT_SECONDS
        while True:
            now = await self.json("select sync.status($1, $2)", user, sync)
            error = (now["error"] or {}).get("code")
            told = (now["progress"], now["phase"] or now["status"], now["page"], error)
            if told not in seen:
                seen.append(told)
                waits = f": {error}, tried again in {now['error']['retry_after']} s" if error else ""
                self._teller.line(f"{told[0]:>3} %  {told[1]}, page {told[2]}{waits}")
            if not now["active"]:
                must(now["status"] == "completed", f"it ended as {now['status']}: {now['error']}")
                return list(dict.fromkeys(percent for percent, *_ in seen))
            must(time.monotonic() < end, "it does not end")
            await asyncio.sleep(LOOK_SECONDS)
