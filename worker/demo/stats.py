"""The demo "stats": a match becomes ten steps, a step that fails comes again alone, the daemon stops cleanly."""

import asyncio
import signal
import time
import tomllib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from worker import migrations
from worker.demo import club
from worker.demo.daemon import Daemon, daemon
from worker.demo.failure import DemoFailed
from worker.demo.gantt import chart
from worker.demo.place import place
from worker.demo.teller import Teller

SEED = 2026
PLAYERS, MATCHES = 200, 2_000
STUMBLER = "recent_performance"  # nothing needs it, so that nothing else has to wait for its second attempt
JOB_SECONDS = 60.0
START_SECONDS = 30.0
LOOK_SECONDS = 0.05
BESIDE = 60  # columns beside the bars of a chart
# The history is loaded, not played: only what happens afterwards is news.
MUTE = "alter table club.match disable trigger user; alter table club.player_match disable trigger user"
UNMUTE = "alter table club.match enable trigger user; alter table club.player_match enable trigger user"


async def play(teller: Teller, config: Path) -> dict[str, Any]:
    """The whole story; SIGTERM and Ctrl-C end it early and leave nothing behind."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(wanted, task.cancel)
    try:
        return await _story(teller, config)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _story(teller: Teller, config: Path) -> dict[str, Any]:
    began, needs = time.monotonic(), _needs(config)
    teller.title("a fresh database")
    async with place(teller) as url:
        await migrations.migrate(url)
        async with _connected(url) as connection:
            tenant = await _prepare(connection, teller)
            async with daemon(url, config) as running:
                scenes = _Scenes(connection, tenant, running, needs, teller)
                await scenes.ready()
                steps = await scenes.finish_match()
                retry = await scenes.stumble()
                await scenes.stop()
    seconds = round(time.monotonic() - began, 2)
    teller.line(f"all of it took {seconds:g} s")
    return {"steps": steps, "retry": retry, "seconds": seconds}


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, timeout=10, command_timeout=60)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def _prepare(connection: asyncpg.Connection, teller: Teller) -> uuid.UUID:
    """The shipped SQL and a made-up club; answers with its id."""
    applied = await migrations.install(connection, "stats")
    teller.line(f"installed the queue, and the statistics of a football club ({len(applied)} files)")
    made = club.generate(SEED, PLAYERS, MATCHES)
    await connection.execute(MUTE)
    with teller.progress(f"{PLAYERS} players, {MATCHES} matches, rows") as tell:
        await club.load(connection, made, tell)
    await connection.execute(UNMUTE)
    return made.tenants[0].id


Needs = dict[str, tuple[str, ...]]


class _Scenes:
    """What happens once the daemon runs."""

    def __init__(
        self, connection: asyncpg.Connection, tenant: uuid.UUID, running: Daemon, needs: Needs, teller: Teller
    ) -> None:
        self._connection = connection
        self._tenant = tenant
        self._daemon = running
        self._teller = teller
        self._needs = needs

    async def ready(self) -> None:
        """The daemon has registered."""
        await self._until(
            lambda: self._ask("select exists (select from worker.process where stopped_at is null)"),
            START_SECONDS,
            "the daemon has not registered",
        )
        self._teller.line("started the daemon: python -m worker run")

    async def finish_match(self) -> dict[str, dict[str, Any]]:
        """A plain UPDATE; its trigger enqueues, the daemon runs the graph."""
        self._teller.title("one match is finished by a plain UPDATE")
        job = await self._watch(await self._play_match())
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
        await self._apply("stumble")
        try:
            job = await self._watch(await self._play_match())
        finally:
            await self._apply("recover")
        rerun = [step["name"] for step in job["steps"] if step["attempt"] > 1]
        self._teller.line(f"attempt 1: {job['last_error']}")
        if job["status"] != "completed" or rerun != [STUMBLER]:
            raise DemoFailed(f"job {job['id']} is {job['status']}; ran again: {', '.join(rerun) or 'nothing'}")
        kept = len(job["steps"]) - len(rerun)
        self._teller.line(
            f"attempt {job['attempt']} ran {', '.join(rerun)} alone; {kept} steps were done and stayed done"
        )
        return {"attempts": job["attempt"], "rerun": rerun}

    async def stop(self) -> None:
        """SIGTERM; the daemon leaves in good order."""
        self._teller.title("a clean stop")
        began = time.monotonic()
        code = await self._daemon.stop()
        left = await self._ask("select count(*) from worker.process where stopped_at is null")
        if code != 0 or left:
            raise DemoFailed(f"after SIGTERM the daemon ended with {code}\n{self._daemon.said()}")
        self._teller.line(f"SIGTERM, and {(time.monotonic() - began) * 1000:.0f} ms later the daemon was gone: exit 0")

    async def _play_match(self) -> int:
        """Finish a match; answers with the job that the trigger enqueued in the same transaction."""
        match = await club.finish_match(self._connection, self._tenant)
        self._teller.line(f"match {match} is over: the application wrote its score and status = 'finished'")
        job = await self._ask("select max(id) from worker.jobs where (payload ->> 'match_id')::bigint = $1", match)
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

    async def _apply(self, name: str) -> None:
        text = (migrations.sql_root() / "demo" / f"{name}.sql").read_text(encoding="utf-8")
        async with self._connection.transaction():
            await self._connection.execute(text)


def _needs(config: Path) -> Needs:
    """What the file says each step needs."""
    try:
        steps = tomllib.loads(config.read_text(encoding="utf-8"))["job"]["stats_update"]["steps"]
        return {name: tuple(step.get("needs", ())) for name, step in steps.items()}
    except (OSError, ValueError, KeyError) as error:
        raise DemoFailed(f"{config} does not declare the steps of stats_update: {error!r}") from None
