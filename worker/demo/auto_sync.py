"""The demo "auto-sync": ten people are asked for their time, those who do not answer are reminded once, a worker is
killed while it sends, and what nobody ends is paused and stopped."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from worker import migrations
from worker.demo import leftovers, tables
from worker.demo.carrier import Carrier, silent
from worker.demo.failure import must, until
from worker.demo.interrupt import interruptible
from worker.demo.place import connected, place
from worker.demo.teller import Teller
from worker.demo.verbs import Said, Verbs

MEMBERS, SEVENTH = 10, "+14155550007"
CONFIG = """\
environment = "demo"
[database]
url = "$DATABASE_URL"
[job.reminder_24h]
python = "worker.jobs.auto_sync:reminder"
settings = {{ sms = "{sms}" }}
unique_key = "{{sync_id}}"
unique_while = "active"
[job.pause_check_48h]
python = "worker.jobs.auto_sync:pause_check"
settings = {{ sms = "{sms}" }}
unique_key = "{{sync_id}}"
unique_while = "active"
[job.auto_end_check]
python = "worker.jobs.auto_sync:end_check"
unique_key = "{{sync_id}}"
unique_while = "active"
"""
_RESULT = "select demo.last_result($1, 'reminder_24h')"


async def play(teller: Teller) -> dict[str, Any]:
    """The whole story; SIGTERM and Ctrl-C end it early and leave nothing behind."""
    return await interruptible(_story(teller))


async def _story(teller: Teller) -> dict[str, Any]:
    began = time.monotonic()
    teller.title("a fresh database")
    async with place(teller) as url, Carrier() as carrier:
        await migrations.migrate(url)
        with leftovers.folder() as folder:
            verbs = {sms: _verbs(folder, url, sms, carrier) for sms in ("console", "twilio")}
            async with connected(url) as connection:
                told = await _scenes(_Crew(connection, verbs, carrier, teller))
    seconds = round(time.monotonic() - began, 2)
    teller.line(f"all of it took {seconds:g} s")
    return told | {"seconds": seconds}


def _verbs(folder: Path, url: str, sms: str, carrier: Carrier) -> Verbs:
    config = folder / f"{sms}.toml"
    config.write_text(CONFIG.format(sms=sms), encoding="utf-8")
    return Verbs(config, url, carrier.environment())


async def _scenes(crew: "_Crew") -> dict[str, Any]:
    return {
        "due_minutes": await crew.begin(),
        "reminder": await crew.remind(),
        "pause": await crew.pause(),
        "goes_on": await crew.go_on(),
        "completed": await crew.complete(),
        "crash": await crew.crash(),
        "stopped": await crew.end(),
        "check": await crew.check(),
    }


class _Crew:
    """The scenes: each does one thing and says what came of it."""

    def __init__(
        self, connection: asyncpg.Connection, verbs: dict[str, Verbs], carrier: Carrier, teller: Teller
    ) -> None:
        self._connection = connection
        self._verbs = verbs
        self._carrier = carrier
        self._teller = teller
        self._sync: UUID

    async def begin(self) -> dict[str, int]:
        """The auto sync and a crew of ten, with the timings of the demo."""
        applied = await migrations.install(self._connection, "auto_sync")
        await tables.apply(self._connection, "auto_sync")
        await self._run("console", "migrate")
        await self._ask("select auto_sync.use_profile('demo')")
        self._teller.line(f"installed the auto sync ({len(applied)} files), with the timings of the demo: one setting")
        self._sync = await self._ask("select demo.begin_sync('Boat trip', 'Olga', $1)", MEMBERS)
        due = await self._due()
        self._teller.line(f"Olga asks a crew of {MEMBERS}; in the same transaction there are the jobs:")
        self._teller.lines([f"  {job_type} in {minutes} min" for job_type, minutes in due.items()])
        return due

    async def remind(self) -> dict[str, int]:
        """Five minutes later those are texted who have not answered."""
        self._teller.title("five minutes later: the reminder")
        for n, said in ((1, "available"), (2, "not_available")):
            await self._ask("select demo.answer($1, $2, $3)", self._sync, n, said)
        await self._ask("update auto_sync.contacts set phone = null where phone = demo.number(3)")
        await self._pass("5 minutes")
        drained = await self._run("console", "drain")
        counts: dict[str, int] = orjson.loads(await self._ask(_RESULT, self._sync))
        written = (drained.out + drained.err).count("sms.console")
        must(written == counts["sent"] + 1, f"{written} texts were written, not {counts['sent']} and the organizer's")
        self._teller.line(f"two had answered, one has no number; the provider `console` wrote {written} texts:")
        self._teller.line(f"  to an invitee: {await self._said('reminder')}")
        self._teller.line(f"  to Olga: {await self._said('reminder_notice')}")
        return counts

    async def pause(self) -> dict[str, Any]:
        """Ten minutes after the start it is paused."""
        self._teller.title("ten minutes after the start: the pause")
        await self._pass("5 minutes")
        await self._run("console", "drain")
        status = await self._status()
        must(status == "paused", f"it is {status}")
        self._teller.line(f"the sync is {status}; to Olga: {await self._said('pause_summary')}")
        return {"status": status, "left": await self._due()}

    async def go_on(self) -> dict[str, int]:
        """The organizer reminds, and what counts from then on is that."""
        self._teller.title("Olga reminds the others herself")
        await self._pass("3 minutes")
        await self._ask(
            "update auto_sync.auto_syncs set status = 'running', last_reminder_sent_at = worker.now() where id = $1",
            self._sync,
        )
        due = await self._due()
        must("reminder_24h" not in due, "it would remind once more")
        self._teller.line(f"running again; no second reminder, and the next pause in {due['pause_check_48h']} min")
        return due

    async def complete(self) -> dict[str, Any]:
        """All have answered: its jobs end with it."""
        self._teller.title("all have answered")
        await self._ask("update auto_sync.auto_syncs set status = 'completed' where id = $1", self._sync)
        left = await self._due()
        must(not left, f"jobs are left: {left}")
        self._teller.line("Olga completes it; its jobs ended in the same transaction")
        return {"left": len(left)}

    async def crash(self) -> dict[str, Any]:
        """A worker is killed when the carrier has taken the seventh of ten texts and not said so yet."""
        self._teller.title("kill -9 at the seventh of ten")
        self._sync = await self._ask("select demo.begin_sync('Night walk', 'Nora', $1)", MEMBERS)
        await self._pass("5 minutes")
        self._carrier.faults[SEVENTH] = silent(listed=False)
        async with self._verbs["twilio"].started("run") as process:
            await until(self._has_the_seventh, "the seventh text never came")
            with suppress(ProcessLookupError):
                process.kill()
        self._teller.line(f"killed; the outbox: {self._line(await self._outbox())}")
        async with self._verbs["twilio"].started("run") as process:
            await until(self._is_through, "the reminder never came to its end")
            process.terminate()
            await process.wait()
        outbox = await self._outbox()
        most = max(len(self._carrier.got(f"+1415555{n:04}")) for n in range(1, MEMBERS + 1))
        must(most == 1, f"somebody got {most} texts")
        must(outbox == {"sent": 9, "unknown": 1}, f"the outbox has {outbox}")
        self._teller.line(f"another worker took over; the outbox: {self._line(outbox)}; nobody got two texts")
        self._teller.line(f"  to Nora: {await self._said('reminder_notice')}")
        return {**outbox, "most_for_one": most}

    async def end(self) -> dict[str, Any]:
        """When all options are over it is stopped."""
        self._teller.title("two days later")
        await self._pass("1 day")
        await self._run("console", "drain", "--wait", "0s")
        again = await self._due()
        await self._pass("30 hours")
        await self._run("console", "drain")
        status = await self._status()
        must(status == "stopped", f"it is {status}")
        self._teller.line(
            f"after the first option the check came again in {again['auto_end_check']} min; then: {status}"
        )
        return {"status": status}

    async def check(self) -> list[str]:
        """What `worker check` says of it."""
        self._teller.title("worker check")
        said = await self._verbs["console"]("check", "--json")
        found = [each for each in orjson.loads(said.out)["findings"] if each["subject"] == "auto_sync"]
        self._teller.lines([f"{each['level']}: {each['said']}" for each in found])
        return [each["level"] for each in found]

    async def _run(self, sms: str, *arguments: str) -> Said:
        said = await self._verbs[sms](*arguments)
        must(said.code == 0, f"worker {' '.join(arguments)} ended with {said.code}: {said.err}")
        return said

    async def _has_the_seventh(self) -> bool:
        return bool(self._carrier.got(SEVENTH))

    async def _is_through(self) -> bool:
        return await self._ask(_RESULT, self._sync) is not None

    async def _pass(self, by: str) -> None:
        await self._ask("select demo.pass_time($1::text::interval)", by)

    async def _due(self) -> dict[str, int]:
        rows = await self._connection.fetch("select * from demo.due($1)", self._sync)
        return {row["job_type"]: int(row["minutes"]) for row in rows}

    async def _outbox(self) -> dict[str, int]:
        counted: dict[str, int] = orjson.loads(await self._ask("select demo.outbox($1)", self._sync))
        return counted

    def _line(self, outbox: dict[str, int]) -> str:
        return ", ".join(f"{number} {status}" for status, number in sorted(outbox.items()))

    async def _said(self, kind: str) -> str:
        return str(await self._ask("select demo.said($1, $2)", self._sync, kind))

    async def _status(self) -> str:
        return str(await self._ask("select status from auto_sync.auto_syncs where id = $1", self._sync))

    async def _ask(self, question: str, *arguments: object) -> Any:
        return await self._connection.fetchval(question, *arguments)
