"""The scenes of the demo "stats": each does one thing to a real daemon and says what came of it."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

import asyncpg
import orjson

from worker.demo import tables
from worker.demo.daemon import Daemon
from worker.demo.failure import DemoFailed
from worker.demo.gantt import chart
from worker.demo.receiver import Receiver, Reply
from worker.demo.teller import Teller

STUMBLER = "recent_performance"  # nothing needs it, so that nothing else has to wait for its second attempt
STORM = 1_000  # matches in one transaction
MOST_RUNS = 2  # that such a storm may cost: one that runs, one that waits
MISSED = 100  # matches that finish while no worker is there
OUTAGE = 2  # deliveries that the receiver refuses
JOB_SECONDS = 60.0
START_SECONDS = 30.0
LOOK_SECONDS = 0.05
BESIDE = 60  # columns beside the bars of a chart


class Scenes:
    """What happens once the daemon runs."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        tenant: uuid.UUID,
        receiver: Receiver,
        steps: dict[str, dict[str, Any]],
        teller: Teller,
    ) -> None:
        self._connection = connection
        self._tenant = tenant
        self._receiver = receiver
        self._teller = teller
        self._first = 0  # the job of the first match
        self._update = 0.0  # seconds that the last UPDATE of an application took, with its trigger
        self._needs = {name: tuple(step.get("needs", ())) for name, step in steps.items()}
        self._tags = {tag for step in steps.values() for tag in step.get("tags", ())}

    async def ready(self, running: Daemon) -> None:
        """The daemon has registered."""
        self._daemon = running
        await self._until(lambda: self._ask("select demo.daemons()"), START_SECONDS, "the daemon has not registered")
        self._teller.line("started the daemon: python -m worker run")

    async def finish_match(self) -> dict[str, dict[str, Any]]:
        """A plain UPDATE; its trigger enqueues, the daemon runs the graph."""
        self._teller.title("one match is finished by a plain UPDATE")
        self._first = await self._play_match()
        job = await self._watch(self._first)
        steps = {
            step["name"]: {"status": step["status"], "ms": round(step["seconds"] * 1000, 1), "attempt": step["attempt"]}
            for step in job["steps"]
        }
        unfinished = [name for name in self._needs if steps.get(name, {}).get("status") != "completed"]
        if unfinished or job["status"] != "completed":
            raise DemoFailed(f"job {job['id']} is {job['status']}; not completed: {', '.join(unfinished)}")
        self._teller.line(
            f"{len(steps)} steps in {job['duration'] * 1000:.0f} ms; they ran as soon as their needs were met"
        )
        return steps

    async def stumble(self) -> dict[str, Any]:
        """A function raises once: its step, and only it, runs again."""
        self._teller.title(f"the next match, and {STUMBLER} fails the first time")
        await tables.apply(self._connection, "stumble")
        try:
            job = await self._watch(await self._play_match())
        finally:
            await tables.apply(self._connection, "recover")
        rerun = [step["name"] for step in job["steps"] if step["attempt"] > 1]
        self._teller.line(f"attempt 1: {job['last_error']}")
        if job["status"] != "completed" or rerun != [STUMBLER]:
            raise DemoFailed(f"job {job['id']} is {job['status']}; ran again: {', '.join(rerun) or 'nothing'}")
        kept = len(job["steps"]) - len(rerun)
        self._teller.line(
            f"attempt {job['attempt']} ran {', '.join(rerun)} alone; {kept} steps were done and stayed done"
        )
        return {"attempts": job["attempt"], "rerun": rerun}

    async def webhook(self) -> dict[str, Any]:
        """What the receiver got for that match."""
        self._teller.title("its cache webhook")
        await self._delivered()
        tags = self._received(0)
        calls = len(self._receiver.calls)
        self._teller.line(f"POST {self._receiver.url}: {len(tags)} tags, {_times(calls, 'call')}, with a bearer key")
        self._teller.line(", ".join(tags))
        return {"calls": calls, "tags": tags}

    async def times(self) -> dict[str, float]:
        """How long that match was on its way: its UPDATE, until the job began, until it was done, until it was told."""
        found = {
            "enqueue_ms": self._update * 1000,
            **orjson.loads(await self._ask("select demo.times($1)", self._first)),
        }
        self._teller.line(
            "the UPDATE took {enqueue_ms:.1f} ms, its job began {wait_ms:.1f} ms after it and took {run_ms:.0f} ms, "
            "the webhook {webhook_ms:.1f} ms; the statistics were there {visible_ms:.0f} ms after the UPDATE".format(
                **found
            )
        )
        return {name: round(value, 1) for name, value in found.items()}

    async def storm(self) -> dict[str, int]:
        """A bulk import: the trigger asks, and the unique key keeps it at one waiting job."""
        self._teller.title(f"{STORM} matches are imported in one transaction")
        newest = await self._newest()
        await tables.add_matches(self._connection, self._tenant, STORM, finished=True)
        await self._caught_up()
        runs = await self._runs_since(newest)
        if not 1 <= runs <= MOST_RUNS:
            raise DemoFailed(f"{STORM} matches made {runs} runs")
        self._teller.line(f"{_times(runs, 'run')} of the ten steps took in all of them; each match has its report")
        return {"matches": STORM, "runs": runs}

    async def outage(self) -> dict[str, Any]:
        """The receiver refuses twice: deliveries are repeated, the statistics are not."""
        self._teller.title(f"a match, and the receiver answers 503 {_times(OUTAGE, 'time')}")
        await self._delivered()
        newest, before = await self._newest(), len(self._receiver.calls)
        self._receiver.plan(*[Reply(503)] * OUTAGE)
        job = await self._play_match()
        await self._watch(job)
        await self._delivered()
        self._received(before)
        deliveries = len(self._receiver.calls) - before
        found = orjson.loads(await self._ask("select worker.show_job($1)", job))
        runs = await self._runs_since(newest)
        if (found["status"], found["attempt"], runs, deliveries) != ("completed", 1, 1, OUTAGE + 1):
            raise DemoFailed(
                f"job {job} is {found['status']} after attempt {found['attempt']}; {runs} runs, {deliveries} deliveries"
            )
        self._teller.line(f"delivered at attempt {deliveries}; the statistics were computed once")
        return {"job_status": found["status"], "deliveries": deliveries}

    async def miss(self) -> None:
        """Nobody is there to work; the application goes on."""
        self._teller.title(f"{MISSED} matches finish while no worker is there")
        await tables.add_matches(self._connection, self._tenant, MISSED, finished=False)
        newest = await self._newest()
        for _ in range(MISSED):
            await tables.finish_match(self._connection, self._tenant)
        waiting = await self._runs_since(newest)
        behind = await self._ask("select demo.matches_behind($1)", self._tenant)
        self._teller.line(f"{behind} matches without statistics, {_times(waiting, 'job')} waiting")

    async def catch_up(self) -> None:
        """The worker is back: nothing was lost."""
        before = len(self._receiver.calls)
        await self._caught_up()
        await self._delivered()
        self._teller.line(f"every match has its report, and the receiver got {len(self._received(before))} tags")

    async def stop(self) -> None:
        """SIGTERM; the daemon leaves in good order."""
        self._teller.title("a clean stop")
        began = time.monotonic()
        code = await self._daemon.stop()
        left = await self._ask("select demo.daemons()")
        if code != 0 or left:
            raise DemoFailed(f"after SIGTERM the daemon ended with {code}\n{self._daemon.said()}")
        self._teller.line(f"SIGTERM, and {(time.monotonic() - began) * 1000:.0f} ms later the daemon was gone: exit 0")

    async def _play_match(self) -> int:
        """Finish a match; answers with the job that the trigger enqueued in the same transaction."""
        began = time.monotonic()
        match = await tables.finish_match(self._connection, self._tenant)
        self._update = time.monotonic() - began
        self._teller.line(f"match {match} is over: the application wrote its score and status = 'finished'")
        job = await self._ask("select demo.job_of($1)", match)
        if job is None:
            raise DemoFailed(f"the trigger enqueued nothing for match {match}")
        self._teller.line(f"its trigger enqueued job {job}")
        return int(job)

    async def _watch(self, job: int) -> dict[str, Any]:
        """Draw the job's steps until it is at its end; answers with the job."""
        found: dict[str, Any] = {}

        async def ended() -> bool:
            found.update(orjson.loads(await self._ask("select worker.show_job($1)", job)))
            draw(list(chart(found["steps"], self._needs, self._teller.width - BESIDE)))
            return found["finished_at"] is not None

        with self._teller.picture() as draw:
            await self._until(ended, JOB_SECONDS, f"job {job} has not ended")
        return found

    async def _caught_up(self) -> None:
        """No stats job is left, and no finished match is without its report."""
        await self._quiet("stats_update", "the stats jobs have not ended")
        if behind := await self._ask("select demo.matches_behind($1)", self._tenant):
            raise DemoFailed(f"{behind} finished matches have no report\n{self._daemon.said()}")

    async def _delivered(self) -> None:
        await self._quiet("invalidate_cache", "the webhook is not delivered")

    async def _quiet(self, job_type: str, otherwise: str) -> None:
        await self._until(lambda: self._ask("select demo.quiet($1)", job_type), JOB_SECONDS, otherwise)

    def _received(self, since: int) -> list[str]:
        """The tags of all calls but the first so many, which must be all that the steps have."""
        tags = {tag for call in self._receiver.calls[since:] for tag in call.json["tags"]}
        if tags != self._tags:
            raise DemoFailed(f"the receiver lacks {sorted(self._tags - tags)}\n{self._daemon.said()}")
        return sorted(tags)

    async def _newest(self) -> int:
        return int(await self._ask("select demo.newest_job()"))

    async def _runs_since(self, newest: int) -> int:
        return int(await self._ask("select demo.runs_since($1)", newest))

    async def _until(self, true: Callable[[], Any], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not await true():
            if self._daemon.ended is not None:
                raise DemoFailed(f"the daemon ended with {self._daemon.ended}\n{self._daemon.said()}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"after {seconds:g} s {otherwise}\n{self._daemon.said()}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _ask(self, query: str, *arguments: object) -> Any:
        return await self._connection.fetchval(query, *arguments)


def _times(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
