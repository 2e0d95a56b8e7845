"""The demo "reconcile": progress that has drifted away from 100,000 collected teams is found and brought back, nothing
is half done when somebody pulls the plug, and what nobody collected is reported."""

import time
from contextlib import suppress
from typing import Any

import asyncpg
import orjson

from worker import migrations
from worker.demo import leftovers, tables
from worker.demo.failure import must, until
from worker.demo.interrupt import interruptible
from worker.demo.place import connected, place
from worker.demo.teller import Teller
from worker.demo.verbs import Said, Verbs

COMPETITIONS, SEASONS, CLUBS = 200, 25, 20
CONFIG = """\
environment = "demo"

[database]
url = "$DATABASE_URL"

[job.reconcile]
python = "worker.jobs.reconcile:reconcile"
settings = { execute = true }
"""
VERB = ("reconcile", "--environment", "demo")


async def play(teller: Teller) -> dict[str, Any]:
    """The whole story; SIGTERM and Ctrl-C end it early and leave nothing behind."""
    return await interruptible(_story(teller))


async def _story(teller: Teller) -> dict[str, Any]:
    began = time.monotonic()
    teller.title("a fresh database")
    async with place(teller) as url:
        await migrations.migrate(url)
        with leftovers.folder() as folder:
            config = folder / "worker.toml"
            config.write_text(CONFIG, encoding="utf-8")
            async with connected(url) as connection:
                told = await _scenes(_League(connection, Verbs(config, url), teller))
    seconds = round(time.monotonic() - began, 2)
    teller.line(f"all of it took {seconds:g} s")
    return told | {"seconds": seconds}


async def _scenes(league: "_League") -> dict[str, Any]:
    return {
        "teams": await league.fill(),
        "dry_run": await league.look(),
        "kill": await league.kill(),
        "execute": await league.execute(),
        "job": await league.job(),
        "in_sync": await league.agree(),
    }


class _League:
    """The scenes: each does one thing and says what came of it."""

    def __init__(self, connection: asyncpg.Connection, verbs: Verbs, teller: Teller) -> None:
        self._connection = connection
        self._verbs = verbs
        self._teller = teller
        self._planned: dict[str, Any] = {}

    async def fill(self) -> int:
        """The league and its progress, which then drifts."""
        applied = await migrations.install(self._connection, "reconcile")
        await tables.apply(self._connection, "league")
        teams: int = await self._ask("select demo.fill_league($1, $2, $3)", COMPETITIONS, SEASONS, CLUBS)
        self._teller.line(f"installed the reconcile ({len(applied)} files); {COMPETITIONS} competitions, {teams} teams")
        await self._ask("select demo.derange_league()")
        self._teller.line("then teams were imported past the trackers, trackers failed and miscounted, and one died")
        return teams

    async def look(self) -> dict[str, Any]:
        """A dry run, which changes nothing."""
        self._teller.title("a dry run")
        before = await self._digest()
        said = await self._verbs(*VERB, "--competition", "C004")
        self._show("worker reconcile --environment demo --competition C004", said)
        self._planned = await self._json(1)
        drift, counts = self._planned["drift"], self._planned["counts"]
        must(await self._digest() == before, "the dry run changed something")
        held = sum(each["held"] for each in counts.values())
        unproven = sum(each["unproven"] for each in counts.values())
        self._teller.line(f"in all {drift} records differ, {held} more are in a live worker's hands; exit code 1")
        self._teller.line("nothing was changed: every row is where it was")
        return {"drift": drift, "held": held, "unproven": unproven}

    async def kill(self) -> dict[str, Any]:
        """The plug is pulled when everything is written and nothing is committed."""
        self._teller.title("--execute, killed in the middle")
        before = await self._digest()
        await self._ask("select demo.begin_dawdling()")
        try:
            async with self._verbs.started(*VERB, "--execute") as process:
                await until(self._within, "it never came to the middle")
                with suppress(ProcessLookupError):
                    process.kill()
            await until(self._gone, "its session stays")
        finally:
            await self._ask("select demo.end_dawdling()")
        unchanged = await self._digest() == before
        must(unchanged, "something was left half done")
        self._teller.line("kill -9 when all was written and nothing committed: nothing is half done")
        return {"unchanged": unchanged}

    async def execute(self) -> dict[str, Any]:
        """What was planned is done, and nothing else."""
        self._teller.title("--execute")
        began = time.monotonic()
        done = await self._json(1, "--execute")
        seconds = round(time.monotonic() - began, 2)
        same = done["changes"] == self._planned["changes"]
        must(same, "what was done is not what was planned")
        left = [row for row in done["changes"] if row["action"] in ("held", "unproven")]
        self._teller.line(f"{done['fixed']} records corrected, exactly those of the dry run, in {seconds:g} s")
        for row in left:
            where = " ".join(filter(None, (row["competition_id"], row["season_year"])))
            self._teller.line(f"left alone: {where}, {row['action']}")
        return {"drift": done["drift"], "fixed": done["fixed"], "as_planned": same, "seconds": seconds}

    async def job(self) -> dict[str, Any]:
        """An hour later the job does the rest."""
        self._teller.title("an hour later, as a job")
        await self._ask("select demo.move_on()")
        number = await self._ask("select worker.enqueue('reconcile')")
        drained = await self._verbs("drain")
        must(drained.code == 0, f"worker drain ended with {drained.code}: {drained.err}")
        result = orjson.loads(await self._ask("select result from worker.jobs where id = $1", number))
        self._teller.line("the missing teams are there, and the worker is dead; `worker drain` ran one job")
        self._teller.line(f"its result: drift {result['drift']}, fixed {result['fixed']}")
        return {"drift": result["drift"], "fixed": result["fixed"]}

    async def agree(self) -> bool:
        """Nothing is left."""
        self._teller.title("and now")
        said = await self._verbs(*VERB)
        self._show("worker reconcile --environment demo", said)
        must(said.code == 0, f"it is not in sync: exit code {said.code}")
        return True

    async def _json(self, code: int, *options: str) -> dict[str, Any]:
        said = await self._verbs(*VERB, "--json", *options)
        must(said.code == code, f"worker reconcile ended with {said.code}, not {code}: {said.err}")
        told: dict[str, Any] = orjson.loads(said.out)
        return told

    def _show(self, command: str, said: Said) -> None:
        self._teller.line(f"$ {command}")
        self._teller.lines(said.out.splitlines())
        must(not said.err, said.err)

    async def _within(self) -> bool:
        return bool(await self._ask("select demo.reconcilers(true)") == 1)

    async def _gone(self) -> bool:
        return bool(await self._ask("select demo.reconcilers(false)") == 0)

    async def _digest(self) -> str:
        return str(await self._ask("select demo.league_digest()"))

    async def _ask(self, question: str, *arguments: object) -> Any:
        return await self._connection.fetchval(question, *arguments)
