"""At most one text for each recipient and none silently lost, whatever the carrier does and whoever is killed."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.heart import QUICK, becomes, until, write_config
from tests.jobs import crews
from tests.jobs.crews import DAY, START, TWILIO, begin, install, jobs, number, outbox
from tests.processes import fleet
from worker.demo import carrier as faults
from worker.demo.carrier import Carrier, Fault
from worker.jobs import auto_sync, sms
from worker.jobs.sms import Text
from worker.outcome import Completed, Outcome, Retried, Snoozed
from worker.testing import Bench, bench

TEN = range(1, 11)
ORGANIZER = "+14155559000"
REMINDER = "select status = $2 from worker.jobs where job_type = 'reminder_24h' and payload ->> 'sync_id' = $1::text"
ALL_REMINDED = "select count(*) = $1 from worker.jobs where job_type = 'reminder_24h' and status = 'completed'"


@pytest.fixture
async def carrier(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Carrier]:
    monkeypatch.setattr(sms, "SECONDS", 0.5)
    async with Carrier() as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
async def db(connection: asyncpg.Connection) -> asyncpg.Connection:
    await install(connection)
    return connection


@pytest.fixture
async def at(db: asyncpg.Connection, dsn: str, tmp_path: Path, carrier: Carrier) -> AsyncIterator[Bench]:
    async with bench(dsn, write_config(tmp_path, TWILIO)) as made:
        await made.stop_clock(START)
        yield made


async def remind(at: Bench, sync: UUID) -> Outcome:
    """Run its reminder, now at last."""
    (job,) = await jobs(at.connection, sync, "reminder_24h")
    await at.stop_clock(max(START + DAY, job["scheduled_at"]))
    return await at.run(job["id"])


async def self_made(db: asyncpg.Connection, first: int) -> UUID:
    """A sync that is due, of ten people whose numbers follow this one."""
    now = await db.fetchval("select now()")
    phones: list[str | None] = [number(first + n) for n in TEN]
    return await begin(db, phones=phones, started_at=now - DAY - crews.HOUR, ends=(now + DAY,))


def one_each(carrier: Carrier, *but: int) -> bool:
    """Whether everybody got one text, but for those who got none; more than one is said at once."""
    got = {n: len(carrier.got(number(n))) for n in TEN}
    assert max(got.values()) <= 1, got
    return got == {n: int(n not in but) for n in TEN}


async def test_one_who_is_refused_holds_nobody_up(at: Bench, db: asyncpg.Connection, carrier: Carrier) -> None:
    carrier.faults[number(3)] = faults.refused()
    sync = await begin(db, 10)
    came = await remind(at, sync)
    assert isinstance(came, Completed)
    assert (came.result["sent"], came.result["failed"]) == (9, 1)
    assert one_each(carrier, 3)
    assert "sent to 9 of the 10 who have not answered, 1 failed." in carrier.got(ORGANIZER)[0]


@pytest.mark.parametrize("taken", [True, False])
async def test_an_ill_carrier_brings_one_text_into_doubt_and_the_others_go_later(
    at: Bench, db: asyncpg.Connection, carrier: Carrier, taken: bool
) -> None:
    """Where it lists the text, there is no doubt; where it does not, it is not sent again."""
    carrier.faults[number(4)] = faults.ill(taken=taken)
    sync = await begin(db, 10)
    if not taken:
        came = await remind(at, sync)
        assert isinstance(came, Retried)
        assert "one text is in doubt: Twilio answered 500" in came.error
        assert list((await outbox(db, sync)).values()) == ["sent"] * 3 + ["unknown"] + ["queued"] * 6
    came = await remind(at, sync)
    assert isinstance(came, Completed)
    assert (came.result["sent"], came.result["unknown"]) == ((10, 0) if taken else (9, 1))
    assert one_each(carrier, *() if taken else (4,))
    if not taken:
        assert "9 of the 10 who have not answered, 1 in doubt" in carrier.got(ORGANIZER)[0]


@pytest.mark.parametrize(("status", "becomes"), [("queued", "sent"), ("undelivered", "failed")])
async def test_what_the_carrier_lists_only_later_is_asked_for_again(
    at: Bench, db: asyncpg.Connection, carrier: Carrier, status: str, becomes: str
) -> None:
    carrier.faults[number(4)] = faults.silent(listed=False)
    sync = await begin(db, 10)
    assert isinstance(await remind(at, sync), Retried)
    assert (await outbox(db, sync))[number(4)] == "unknown"
    (late,) = [text for text in carrier.texts if text["to"] == number(4)]
    late |= {"listed": True, "status": status}
    assert isinstance(await remind(at, sync), Completed)
    assert (await outbox(db, sync))[number(4)] == becomes
    assert one_each(carrier)


async def test_a_carrier_that_cannot_be_asked_leaves_the_text_to_whoever_comes_next(
    at: Bench, db: asyncpg.Connection, carrier: Carrier
) -> None:
    carrier.faults[number(4)] = faults.ill(taken=True)
    sync = await begin(db, 10)
    carrier.mute = True
    came = await remind(at, sync)
    assert isinstance(came, Retried)
    assert "when it was asked for a text" in came.error
    assert (await outbox(db, sync))[number(4)] == "sending"
    assert isinstance(await remind(at, sync), Retried)
    assert carrier.got(number(5)) == []
    carrier.mute = False
    assert isinstance(await remind(at, sync), Completed)
    assert one_each(carrier)
    assert set((await outbox(db, sync)).values()) == {"sent"}


@pytest.mark.parametrize("fault", [faults.busy(700), faults.busy(90)], ids=["too long", "90 s"])
async def test_a_busy_carrier_is_left_alone_for_as_long_as_it_says(
    at: Bench, db: asyncpg.Connection, carrier: Carrier, fault: Fault
) -> None:
    carrier.faults[number(2)] = fault
    sync = await begin(db, 10)
    came = await remind(at, sync)
    assert isinstance(came, Retried)
    assert came.delay == (600 if fault == faults.busy(700) else 90)
    assert list((await outbox(db, sync)).values()) == ["sent"] + ["queued"] * 9
    assert isinstance(await remind(at, sync), Completed)
    assert one_each(carrier)


async def test_where_nobody_listens_everybody_waits_and_nobody_is_in_doubt(
    at: Bench, db: asyncpg.Connection, carrier: Carrier
) -> None:
    sync = await begin(db, 10)
    await carrier.stop()
    for _ in range(2):
        assert isinstance(await remind(at, sync), Retried)
    assert set((await outbox(db, sync)).values()) == {"queued"}
    assert "pause_check_48h" in await crews.live(db, sync)  # which does not wait for a reminder that never goes
    await carrier.start()
    assert isinstance(await remind(at, sync), Completed)
    assert one_each(carrier)


async def test_a_carrier_that_is_away_past_the_pause_leaves_people_their_24_hours(
    at: Bench, db: asyncpg.Connection, carrier: Carrier
) -> None:
    sync = await begin(db, 10)
    await carrier.stop()
    assert isinstance(await remind(at, sync), Retried)
    (pause,) = await jobs(db, sync, "pause_check_48h")
    await at.stop_clock(START + 2 * DAY)
    waits = await at.run(pause["id"])
    assert waits == Snoozed(until=START + 2 * DAY + crews.MINUTE)  # its reminder is still to come
    await carrier.start()
    (reminder,) = await jobs(db, sync, "reminder_24h")
    assert isinstance(await at.run(reminder["id"]), Completed)
    await at.stop_clock(START + 2 * DAY + crews.MINUTE)
    assert await at.run(pause["id"]) == Snoozed(until=START + 3 * DAY)
    await at.stop_clock(START + 3 * DAY)
    assert isinstance(await at.run(pause["id"]), Completed)


@pytest.mark.parametrize("begun", [True, False])
async def test_a_reminder_that_never_comes_to_its_end_keeps_no_sync_running(
    at: Bench, db: asyncpg.Connection, carrier: Carrier, begun: bool
) -> None:
    sync = await begin(db, 10)
    if begun:
        await carrier.stop()
        assert isinstance(await remind(at, sync), Retried)
    (reminder,) = await jobs(db, sync, "reminder_24h")
    await db.execute("select worker.cancel($1, 'by hand')", reminder["id"])
    await at.stop_clock(START + 2 * DAY)
    assert await db.fetchval("select auto_sync.mend()") == int(not begun)
    if begun:
        await carrier.start()
    (pause,) = await jobs(db, sync, "pause_check_48h")
    assert isinstance(await at.run(pause["id"]), Completed)
    assert (await crews.one(db, sync))["status"] == "paused"


async def test_the_organizer_s_text_is_tried_again_without_the_others(
    at: Bench, db: asyncpg.Connection, carrier: Carrier
) -> None:
    carrier.faults[ORGANIZER] = faults.busy(1)
    sync = await begin(db, 10)
    assert isinstance(await remind(at, sync), Retried)
    assert isinstance(await remind(at, sync), Completed)
    assert one_each(carrier)
    assert len(carrier.got(ORGANIZER)) == 1


async def test_a_pause_whose_text_fails_is_a_pause_and_is_told_later(
    at: Bench, db: asyncpg.Connection, carrier: Carrier
) -> None:
    sync = await begin(db, 10)
    await remind(at, sync)
    carrier.faults[ORGANIZER] = faults.busy(1)
    (job,) = await jobs(db, sync, "pause_check_48h")
    await at.stop_clock(START + 2 * DAY)
    assert isinstance(await at.run(job["id"]), Retried)
    assert (await crews.one(db, sync))["status"] == "paused"
    await at.stop_clock(START + 3 * DAY)
    assert isinstance(await at.run(job["id"]), Completed)
    assert [text.partition(" ")[0] for text in carrier.got(ORGANIZER)] == ["Reminder", "Boat"]
    assert (await crews.one(db, sync))["paused_at"] == START + 2 * DAY


@pytest.mark.parametrize("listed", [False, True], ids=["nobody can tell", "the carrier can tell"])
async def test_a_crash_at_the_seventh_of_ten(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, carrier: Carrier, listed: bool
) -> None:
    """Killed between the carrier's taking the seventh and its word: three get theirs, nobody two."""
    carrier.faults[number(7)] = faults.silent(listed=listed)
    config = write_config(tmp_path, TWILIO)
    sync = await crews.begun(db, 10)
    with fleet(tmp_path, dsn) as daemons:
        first = daemons.start(config)
        seventh = "select exists (select from auto_sync.outbox where phone = $1 and status = 'sending')"
        await until(db, seventh, number(7), seconds=60)
        await becomes(lambda: carrier.got(number(7)), seconds=60)
        first.kill()
        assert list((await outbox(db, sync)).values()) == ["sent"] * 6 + ["sending"] + ["queued"] * 3
        daemons.start(config)
        await until(db, REMINDER, str(sync), "completed", seconds=90)
    assert one_each(carrier)
    assert list((await outbox(db, sync)).values()) == ["sent"] * 6 + ["sent" if listed else "unknown"] + ["sent"] * 3
    doubtful = await db.fetch("select phone, status, error from auto_sync.doubtful")
    said = "the attempt before this one did not come to its end"
    assert [tuple(row) for row in doubtful] == ([] if listed else [(number(7), "unknown", said)])
    (told,) = carrier.got(ORGANIZER)
    counted = "10 of the 10 who have not answered." if listed else "9 of the 10 who have not answered, 1 in doubt."
    assert counted in told
    checked = {row["said"] for row in await db.fetch("select * from auto_sync.check()")}
    assert ("1 messages may or may not have arrived" in checked) is not listed


async def test_kills_at_any_time(db: asyncpg.Connection, dsn: str, tmp_path: Path, carrier: Carrier) -> None:
    """Two daemons, of which one is killed now and then: every text is accounted for, and nobody gets two."""
    carrier.pace = 0.01
    config = write_config(tmp_path, TWILIO)
    people = {sync: range(10 * n + 1, 10 * n + 11) for n in range(6) for sync in [await self_made(db, 10 * n)]}
    with fleet(tmp_path, dsn) as daemons:
        standing = [daemons.start(config), daemons.start(config)]
        for kill in range(3):
            await becomes(lambda: len(carrier.texts) >= 15 * (kill + 1), seconds=60)  # noqa: B023 - awaited at once
            standing.pop(0).kill()
            standing.append(daemons.start(config))
        await until(db, ALL_REMINDED, len(people), seconds=110)
    for sync, numbers in people.items():
        statuses = await outbox(db, sync)
        assert set(statuses.values()) <= {"sent", "unknown"}
        for n in numbers:
            got = len(carrier.got(number(n)))
            assert got == 1 or (got, statuses[number(n)]) == (0, "unknown"), (n, got, statuses)
    in_doubt = await db.fetchval("select count(*) from auto_sync.doubtful")
    assert in_doubt <= 3 * len(people)


async def test_a_daemon_that_stops_lets_the_text_under_way_come_to_its_end(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, carrier: Carrier
) -> None:
    config = write_config(tmp_path, TWILIO, worker=QUICK.replace('grace = "10s"', 'grace = "100ms"'))
    gate = carrier.slow(number(7))
    sync = await crews.begun(db, 10)
    with fleet(tmp_path, dsn) as daemons:
        first = daemons.start(config)
        await becomes(lambda: carrier.got(number(7)), seconds=60)
        first.send(signal.SIGTERM)
        first.says("service.draining")
        asyncio.get_running_loop().call_later(0.5, gate.set)  # past its grace: the job is interrupted before
        assert await asyncio.to_thread(first.ends) == 0
        assert list((await outbox(db, sync)).values()) == ["sent"] * 7 + ["queued"] * 3
        daemons.start(config)
        await until(db, REMINDER, str(sync), "completed", seconds=90)
    assert one_each(carrier)
    assert set((await outbox(db, sync)).values()) == {"sent"}


async def test_a_job_that_is_ended_with_its_sync_leaves_nobody_waiting(
    db: asyncpg.Connection, dsn: str, tmp_path: Path, carrier: Carrier
) -> None:
    config = write_config(tmp_path, TWILIO)
    gate = carrier.slow(number(7))
    sync = await crews.begun(db, 10)
    with fleet(tmp_path, dsn) as daemons:
        daemons.start(config)
        await becomes(lambda: carrier.got(number(7)), seconds=60)
        await db.execute("update auto_sync.auto_syncs set status = 'stopped' where id = $1", sync)
        asyncio.get_running_loop().call_later(1.0, gate.set)
        await until(db, REMINDER, str(sync), "cancelled", seconds=60)
    assert list((await outbox(db, sync)).values()) == ["sent"] * 7 + ["skipped"] * 3
    assert one_each(carrier, 8, 9, 10)


async def test_who_lost_the_job_sends_nothing_more(at: Bench, db: asyncpg.Connection) -> None:
    sync = await begin(db, 2)
    await at.stop_clock(START + DAY)
    await db.execute("select * from auto_sync.begin_reminder($1, 0)", sync)
    (job,) = await jobs(db, sync, "reminder_24h")
    take = "select * from auto_sync.next_message($1, 'reminder', 1, $2, $3)"
    assert await db.fetchrow(take, sync, job["id"], 1) is None  # it is not running
    await db.execute(
        "update worker.job_queue set status = 'running', queued = false, claim = 5, started_at = now() where id = $1",
        job["id"],
    )
    assert await db.fetchrow(take, sync, job["id"], 4) is None
    row = await db.fetchrow(take, sync, job["id"], 5)
    assert row is not None
    note = "select auto_sync.note_message($1, $2, $3)"
    assert await db.fetchval(note, row["id"], "queued", 4) is False  # only its sender knows that it was not taken
    assert await db.fetchval(note, row["id"], "unknown", 6) is True
    assert await db.fetchval(note, row["id"], "queued", 5) is False
    assert await db.fetchval(note, row["id"], "sent", 5) is True  # a late word is a word
    for late in ("failed", "unknown", "queued"):
        assert await db.fetchval(note, row["id"], late, 5) is False
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(note, row["id"], "skipped", 5)


async def test_a_sync_that_ends_in_the_middle_is_not_sent_for_any_more(
    at: Bench, db: asyncpg.Connection, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = await begin(db, 10)
    send = sms.Twilio.send

    async def last(self: sms.Twilio, context: object, text: Text) -> str | None:
        sent = await send(self, context, text)  # type: ignore[arg-type]
        if text.phone == number(5):
            await db.execute("update auto_sync.auto_syncs set status = 'completed' where id = $1", sync)
        return sent

    monkeypatch.setattr(sms.Twilio, "send", last)
    came = await remind(at, sync)
    assert isinstance(came, Completed)
    assert (came.result["sent"], came.result["skipped"]) == (5, 5)
    assert one_each(carrier, 6, 7, 8, 9, 10)
    assert carrier.got(ORGANIZER) == []


class Ending:
    """Makes an attempt end at the n-th call that it makes of the database or of the carrier."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
        self.left = 0
        self._done = done
        for name in ("_ask", "_value"):
            monkeypatch.setattr(auto_sync, name, self._counted(getattr(auto_sync, name)))
        monkeypatch.setattr(sms.Twilio, "send", self._counted(sms.Twilio.send))

    def _counted(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*arguments: Any) -> Any:
            self.left -= 1
            ends = self.left == 0
            if ends and not self._done:
                raise RuntimeError("the end")
            came = await call(*arguments)
            if ends:
                raise RuntimeError("the end")
            return came

        return counted


@pytest.fixture(params=[False, True], ids=["before it", "after it"])
def ending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ending:
    return Ending(monkeypatch, request.param)


async def test_whatever_is_the_last_thing_that_a_reminder_does(
    at: Bench, db: asyncpg.Connection, carrier: Carrier, ending: Ending
) -> None:
    """For every n: nobody gets two texts, and only one of which nobody knows gets none."""
    for calls in itertools.count(1):
        carrier.texts.clear()
        await at.stop_clock(START)
        sync, ending.left = await begin(db, 2), calls
        if isinstance(await remind(at, sync), Completed):
            break
        assert isinstance(await remind(at, sync), Completed)
        statuses = await outbox(db, sync)
        assert set(statuses.values()) <= {"sent", "unknown"}
        for n in (1, 2):
            assert len(carrier.got(number(n))) == (statuses[number(n)] == "sent"), (calls, statuses)
        assert told_once(carrier, await outbox(db, sync, "reminder_notice"))
        await db.execute("delete from auto_sync.auto_syncs where id = $1", sync)
    assert calls > 12


async def test_whatever_is_the_last_thing_that_a_pause_does(
    at: Bench, db: asyncpg.Connection, carrier: Carrier, ending: Ending
) -> None:
    for calls in itertools.count(1):
        await at.stop_clock(START)
        sync = await begin(db, 2)
        await remind(at, sync)
        carrier.texts.clear()
        ending.left = calls
        (job,) = await jobs(db, sync, "pause_check_48h")
        await at.stop_clock(START + 2 * DAY)
        if isinstance(await at.run(job["id"]), Completed):
            break
        await at.stop_clock(START + 3 * DAY)
        assert isinstance(await at.run(job["id"]), Completed)
        assert (await crews.one(db, sync))["status"] == "paused"
        assert told_once(carrier, await outbox(db, sync, "pause_summary"))
        await db.execute("delete from auto_sync.auto_syncs where id = $1", sync)
    assert calls > 4


def told_once(carrier: Carrier, outbox: dict[str | None, str]) -> bool:
    """The organizer got one text, or none and nobody knows."""
    return outbox == {ORGANIZER: "sent" if carrier.got(ORGANIZER) else "unknown"} and len(carrier.got(ORGANIZER)) <= 1


async def test_an_interrupted_text_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, done = asyncio.Event(), []

    async def send(text: Text) -> None:
        await gate.wait()
        done.append(text)

    sending = asyncio.create_task(auto_sync._to_its_end(send, Text(1, "", "", "")))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.sleep(0)
    assert not sending.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert len(done) == 1
