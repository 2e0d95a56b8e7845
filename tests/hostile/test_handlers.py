"""Handlers that will not behave: whatever they do, their job gets its verdict, and the daemon and its other jobs go on.

The daemon runs in this very loop, so a handler that blocks it blocks the test as well, as it blocks its neighbours.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.heart import QUICK, configured, daemon, enqueue, row, until
from worker import Context, executor
from worker.errors import CancelRequested, Later, Permanent
from worker.outcome import Cancelled, Completed, Failed, Outcome, Retried, Skipped, Snoozed

JOBS = """
[job.hostile]
python = "tests.hostile.test_handlers:hostile"
timeout = "{timeout}"
retry = {{ first = "1ms", max_attempts = 1 }}
[job.plain]
python = "tests.hostile.test_handlers:plain"
"""
ENDED = "select count(*) = 0 from worker.job_queue where status in ('pending', 'running')"
DONE = "select status = 'completed' from worker.job_queue where id = $1"

Handler = Callable[[Context], Awaitable[Any]]
DO: dict[str, Handler] = {}


async def hostile(context: Context) -> Any:
    """Does what the test put under the name that the payload says."""
    return await DO[context.payload["do"]](context)


async def plain(context: Context) -> str:
    return "done"


@pytest.fixture(autouse=True)
def forget():
    yield
    DO.clear()


@pytest.fixture
def config(dsn, tmp_path):
    return configured_with(dsn, tmp_path)


def configured_with(dsn, tmp_path, *, timeout="30s", worker=QUICK, database='search_path = "public"'):
    return configured(tmp_path, dsn, JOBS.format(timeout=timeout), worker=worker, database=database)


async def enqueued(connection: asyncpg.Connection, handlers: Mapping[str, Handler]) -> dict[str, int]:
    """One job for each handler, of one attempt."""
    DO.update(handlers)
    return {name: await enqueue(connection, "hostile", {"do": name}, max_attempts=1) for name in handlers}


async def ended(
    config: Any, connection: asyncpg.Connection, handlers: Mapping[str, Handler]
) -> dict[str, asyncpg.Record]:
    """The rows of one batch that a daemon ran to its end, with a well-behaved job among them that completed."""
    ids = await enqueued(connection, handlers)
    neighbour = await enqueue(connection, "plain")
    async with daemon(config) as (_, task, _me):
        await until(connection, ENDED)
        assert not task.done()
        after = await enqueue(connection, "plain")
        await until(connection, DONE, after)
    assert (await row(connection, neighbour))["attempt"] == 1
    return {name: await row(connection, each) for name, each in ids.items()}


def answers(value: Any) -> Handler:
    async def handler(context: Context) -> Any:
        return value() if callable(value) else value

    return handler


def raises(error: Callable[[], BaseException]) -> Handler:
    async def handler(context: Context) -> None:
        raise error()

    return handler


# --- what they raise


class Unsayable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Quitting(Exception):
    """Its text ends the process, or tries to."""

    def __str__(self) -> str:
        raise SystemExit(9)

    __repr__ = __str__


class CancellingText(Exception):
    def __str__(self) -> str:
        raise asyncio.CancelledError

    __repr__ = __str__


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)

    __repr__ = __str__


class NoText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307


class Own(BaseException):
    pass


class UnsayableCancel(CancelRequested):
    __str__ = Unsayable.__str__


def circular() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    one.__context__, other.__context__ = other, one
    return one


def chained() -> BaseException:
    error: BaseException = ValueError("first")
    for _ in range(5_000):
        following = ValueError("next")
        following.__cause__ = error
        error = following
    return error


ERRORS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "text raises": (Unsayable, "Unsayable: (its text cannot be had: ValueError)"),
    "text quits": (Quitting, "Quitting: (its text cannot be had: SystemExit)"),
    "text cancels": (CancellingText, "CancellingText: (its text cannot be had: CancelledError)"),
    "text loops": (Endless, "Endless: (its text cannot be had: RecursionError)"),
    "text is no text": (NoText, "NoText: (its text cannot be had: TypeError)"),
    "NUL": (lambda: ValueError("a\x00b"), "ValueError: a\\0b"),
    "lone surrogates": (lambda: ValueError("\ud800\udfff"), "ValueError: \\ud800\\udfff"),
    "10 MB": (lambda: ValueError("x" * 10_000_000), "ValueError: " + "x" * 1_988),
    "10 MB of surrogates": (lambda: ValueError("\udc80" * 2_000_000), "ValueError: " + "\\udc80" * 331 + "\\u"),
    "right to left": (lambda: ValueError("\u202e\u2066\U0001f600"), "ValueError: \u202e\u2066\U0001f600"),
    "SystemExit": (lambda: SystemExit(3), "SystemExit: 3"),
    "KeyboardInterrupt": (KeyboardInterrupt, "KeyboardInterrupt"),
    "BaseException": (lambda: Own("x"), "Own: x"),
    "GeneratorExit": (GeneratorExit, "GeneratorExit"),
    "StopIteration": (StopIteration, "RuntimeError: coroutine raised StopIteration"),
    "a cancellation": (lambda: asyncio.CancelledError("\x00", 1), "JobError: ('\\x00', 1)"),
    "1,000 in a group": (
        lambda: ExceptionGroup("many", [ValueError(str(n)) for n in range(1_000)]),
        "ExceptionGroup: many (1000 sub-exceptions)",
    ),
    "a group of quits": (
        lambda: BaseExceptionGroup("many", [SystemExit(1), KeyboardInterrupt()]),
        "BaseExceptionGroup: many (2 sub-exceptions)",
    ),
    "circular causes": (circular, "ValueError: one"),
    "a chain of 5,000": (chained, "ValueError: next"),
    "out of memory": (MemoryError, "MemoryError"),
    "Later, never": (
        lambda: Later("x", delay=float("nan")),
        "TypeError: Later: delay must be a finite number of seconds, not nan",
    ),
    "Later, no number": (
        lambda: Later("x", delay="soon"),  # type: ignore[arg-type]
        "TypeError: Later: delay must be a finite number of seconds, not 'soon'",
    ),
}


async def test_whatever_they_raise_is_on_the_row(config, connection):
    rows = await ended(config, connection, {name: raises(error) for name, (error, _) in ERRORS.items()})
    assert {name: (each["status"], message(each)) for name, each in rows.items()} == {
        name: ("failed", text) for name, (_, text) in ERRORS.items()
    }
    assert {name for name, each in rows.items() if each["attempt"] != 1} == set()


def message(found: asyncpg.Record) -> str:
    said: str = orjson.loads(found["errors"] or '[{"message": ""}]')[-1]["message"]
    return said


async def test_a_retry_that_names_no_time_is_retried_or_failed_but_never_stuck(config, connection):
    delays: dict[str, Any] = {
        "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "text": "soon", "1e300": 1e300, "none": None,
    }  # fmt: skip

    def later(delay: Any) -> Handler:
        async def handler(context: Context) -> None:
            if context.job.attempt == 1:
                raise Later("not now", delay=delay)

        return handler

    DO.update({name: later(delay) for name, delay in delays.items()})
    ids = {name: await enqueue(connection, "hostile", {"do": name}, max_attempts=2) for name in delays}
    async with daemon(config) as (_, task, _me):
        await until(connection, "select count(*) = 0 from worker.job_queue where status = 'running' or attempt = 0")
        assert not task.done()
    rows = {name: await row(connection, each) for name, each in ids.items()}
    assert {each["status"] for each in rows.values()} <= {"completed", "failed", "pending"}


async def test_an_unsayable_cancel_is_a_cancel(config, connection):
    rows = await ended(config, connection, {"cancel": raises(UnsayableCancel)})
    assert rows["cancel"]["status"] in ("cancelled", "failed")


# --- what they return


def loop() -> Any:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@dataclass
class Broken:
    value: object


class Odd(Enum):
    ONE = b"bytes"


RESULTS: dict[str, tuple[Any, str]] = {
    "an object": (object(), "not_kept"),
    "a function": (lambda: print, "not_kept"),
    "bytes": (b"\x00\xff", "not_kept"),
    "a set": ({1, 2}, "not_kept"),
    "circular": (loop, "not_kept"),
    "200 deep": (lambda: deep(200), "[[[[[[[["),
    "5,000 deep": (lambda: deep(5_000), "not_kept"),
    "50 MB": (lambda: "x" * 50_000_000, "larger than 65536 bytes"),
    "10 MB of NUL": (lambda: "\x00" * 10_000_000, "larger than 65536 bytes"),
    "a surrogate": ("\ud800", "not_kept"),
    "a surrogate as a key": ({"\udfff": 1}, "not_kept"),
    "NUL": ({"a\x00": ["b\x00"]}, "a\\\\0"),
    "a written NUL": ("\\u0000", "u0000"),
    "NaN": (float("nan"), "null"),
    "infinity": ([float("inf"), float("-inf")], "[null, null]"),
    "2 ** 64": (2**64, "18446744073709551616"),
    "10 ** 5000": (10**5000, "not_kept"),
    "keys of all kinds": ({1: 1, None: 2, 1.5: 3, False: 4}, "null"),
    "tuple keys": ({(1, 2): 1}, "not_kept"),
    "a dataclass": (Broken(object()), "not_kept"),
    "an enum": (Odd.ONE, "not_kept"),
    "a moment": (datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), "9999-12-31"),
    "negative zero": (-0.0, "0"),
    "a class": (lambda: dict, "not_kept"),
}


async def test_whatever_they_return_completes(config, connection):
    rows = await ended(config, connection, {name: answers(value) for name, (value, _) in RESULTS.items()})
    assert {name: each["status"] for name, each in rows.items()} == dict.fromkeys(RESULTS, "completed")
    assert {
        name: rows[name]["result"][:200] for name, (_, part) in RESULTS.items() if part not in rows[name]["result"]
    } == {}


class Strange(Outcome):
    """An outcome of somebody's own, without a status."""


# Outcomes that cannot be written, or that an author was never meant to say.
OUTCOMES: dict[str, Any] = {
    "a reason that is no text": lambda: Completed(reason=5),  # type: ignore[arg-type]
    "a reason with NUL": lambda: Completed(reason="a\x00\ud800"),
    "a skip of 10 MB": lambda: Skipped("x" * 10_000_000),
    "a cancel of NUL": lambda: Cancelled("\x00"),
    "an outcome of their own": Strange,
    "the base": Outcome,
    "retried without a number": lambda: Retried("x", "soon"),  # type: ignore[arg-type]
    "failed without a text": lambda: Failed(5, "exhausted"),  # type: ignore[arg-type]
    "failed with a reason that is no text": lambda: Failed("x", 5),  # type: ignore[arg-type]
    "failed with NUL": lambda: Failed("\x00", "permanent"),
    "until the last day": lambda: Snoozed(until=datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))),
    "until the first day": lambda: Snoozed(until=datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))),
    "until year 9999": lambda: Snoozed(until=datetime(9999, 12, 31, tzinfo=UTC)),
    "for 1e300 s": lambda: Snoozed(1e300),
    "for -1e300 s": lambda: Snoozed(-1e300),
    "for a huge integer": lambda: Snoozed(10**400),
    "the class alone": lambda: Completed,
    "an error returned": lambda: ValueError("returned"),
    "a snooze of NaN": lambda: Snoozed(float("nan")),
    "many outcomes": lambda: [Completed(), Completed()],
    "one outcome in a list": lambda: [Completed(reason=7)],  # type: ignore[arg-type]
}


async def test_an_outcome_that_cannot_be_written_is_not_for_ever_running(config, connection):
    """Not even the settler dies of it: one that cannot be sent must not strand the others of its group."""
    ids = await enqueued(connection, {name: answers(make) for name, make in OUTCOMES.items()})
    others = [await enqueue(connection, "plain") for _ in range(20)]
    async with daemon(config) as (_, task, _me):
        judged = "select count(*) = 0 from worker.job_queue where status = 'running' or (attempt = 0 and snoozes = 0)"
        with suppress(AssertionError):
            await until(connection, judged, seconds=5)
        crashed = task.done()
    rows = {name: await row(connection, each) for name, each in ids.items()}
    left = {name: each["status"] for name, each in rows.items() if each["status"] == "running"}
    assert (left, crashed) == ({}, False)
    assert {(each["status"], each["attempt"]) for each in [await row(connection, i) for i in others]} == {
        ("completed", 1)
    }


async def test_what_they_enqueue_cannot_hold_up_their_verdict(config, connection):
    async def nul(context: Context) -> None:
        context.enqueue("plain", {"a": "\x00"})

    async def too_large(context: Context) -> None:
        context.enqueue("plain", {"a": "x" * 70_000})

    async def changed_afterwards(context: Context) -> None:
        items: list[Any] = [1]
        context.enqueue("plain", {"items": items})
        items.append(object())

    async def nonsense(context: Context) -> None:
        context.enqueue("NO SUCH TYPE", {}, delay="soon", priority=10**6)

    rows = await ended(
        config, connection,
        {"nul": nul, "too_large": too_large, "changed_afterwards": changed_afterwards, "nonsense": nonsense},
    )  # fmt: skip
    assert {name: each["status"] for name, each in rows.items()} == {
        "nul": "failed", "too_large": "failed", "changed_afterwards": "completed", "nonsense": "failed",
    }  # fmt: skip


# --- how they end, or do not


async def test_deadlines_end_those_that_swallow_and_shield(dsn, tmp_path, connection, monkeypatch):
    monkeypatch.setattr(executor, "END_SECONDS", 0.1)
    release = asyncio.Event()
    strays: list[asyncio.Task[Any]] = []

    async def swallows(context: Context) -> str:
        while not release.is_set():
            with suppress(BaseException):
                await release.wait()
        return "too late"

    async def shields(context: Context) -> None:
        strays.append(asyncio.ensure_future(release.wait()))
        await asyncio.shield(strays[-1])

    async def shields_for_ever(context: Context) -> None:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.ensure_future(release.wait()))

    async def raises_when_cancelled(context: Context) -> None:
        try:
            await release.wait()
        finally:
            raise Permanent("not the reason that counts")

    async def exits_when_cancelled(context: Context) -> None:
        try:
            await release.wait()
        except asyncio.CancelledError:
            raise SystemExit(1) from None

    async def uncancels(context: Context) -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            await release.wait()
        except asyncio.CancelledError:
            task.uncancel()
        return "went on"

    config = configured_with(dsn, tmp_path, timeout="200ms")
    every = (swallows, shields, shields_for_ever, raises_when_cancelled, exits_when_cancelled, uncancels)
    try:
        rows = await ended(config, connection, {each.__name__: each for each in every})
    finally:
        release.set()
        await asyncio.gather(*strays, return_exceptions=True)
    assert {name: (each["status"], each["finish_reason"], each["result"]) for name, each in rows.items()} == {
        each.__name__: ("failed", "timeout", None) for each in every
    }


async def test_stray_tasks_do_not_hold_the_job(config, connection):
    """They outlive it, as tasks do; what they do through the job's context is refused, for its claim is gone."""
    release = asyncio.Event()
    strays: list[asyncio.Task[Any]] = []

    async def late(context: Context) -> str:
        while not release.is_set():
            with suppress(asyncio.CancelledError):  # and it swallows the cancellation that it gets at its handler's end
                await release.wait()
        try:
            await context.progress("after the end")
        except Exception as error:
            return type(error).__name__
        return "accepted"

    async def spawns(context: Context) -> str:
        strays.extend(asyncio.create_task(late(context)) for _ in range(20))
        await asyncio.sleep(0)
        return "ended"

    DO["spawns"] = spawns
    async with daemon(config):
        job = await enqueue(connection, "hostile", {"do": "spawns"})
        await until(connection, DONE, job)
        release.set()
        assert set(await asyncio.wait_for(asyncio.gather(*strays), 20)) == {"LostClaim"}


async def test_a_loop_that_is_blocked_keeps_its_lease(dsn, tmp_path, connection):
    """time.sleep for twice the lease: the beat has a thread of its own, so nobody runs the job again."""
    runs: list[int] = []

    async def blocks(context: Context) -> str:
        runs.append(context.job.attempt)
        time.sleep(2.4)  # noqa: ASYNC251 - the mistake this is about
        return "awake"

    DO["blocks"] = blocks
    worker = 'beat = "100ms"\nfence = "600ms"\nmissing = "900ms"\nlease = "1200ms"\npoll = "1s"\ngrace = "10s"'
    config = configured_with(dsn, tmp_path, worker=worker)
    async with daemon(config) as (_, task, me):
        job = await enqueue(connection, "hostile", {"do": "blocks"})
        await until(connection, DONE, job)
        assert not task.done()
    found = await row(connection, job)
    assert (runs, found["attempt"], found["rescues"], found["claimed_by"]) == ([1], 1, 0, me)


# --- what they leave on a connection


LEFT = """
select current_user::text as "user", current_setting('role') as role, current_setting('search_path') as search_path,
  current_setting('statement_timeout') as timeout, coalesce(current_setting('app.tenant', true), '') as tenant,
  current_setting('transaction_read_only') as read_only, current_setting('transaction_isolation') as isolation,
  (select count(*) from pg_class where relpersistence = 't' and relkind = 'r'
     and pg_table_is_visible(oid)) as temporary,
  (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
  (select count(*) from pg_listening_channels()) as channels,
  (select count(*) from pg_cursors where is_holdable) as cursors
"""
CLEAN = {
    "user": "postgres", "role": "none", "search_path": "public", "timeout": "0", "tenant": "", "read_only": "off",
    "isolation": "read committed", "temporary": 0, "locks": 0, "channels": 0, "cursors": 0,
}  # fmt: skip
LEAKS = {
    "an open transaction": "begin; insert into kept values (1)",
    "a failed transaction": "begin; insert into kept values (1); select pg_advisory_lock(1); savepoint s",
    "a transaction at another level": "begin isolation level serializable read only",
    "a role": "set role worker_tenant",
    "a session authorization": "set session authorization worker_tenant",
    "settings": "set search_path = nowhere; set app.tenant = 'x'; set default_transaction_read_only = on",
    "a default isolation": "set default_transaction_isolation = 'serializable'",
    "a tiny timeout": "set statement_timeout = '1ms'",
    "an idle timeout": "set idle_in_transaction_session_timeout = '1ms'; begin",
    "temporary tables": "create temp table a (n int); create temp table job_queue (n int); insert into a values (1)",
    "advisory locks": "select pg_advisory_lock(1), pg_advisory_lock(1), pg_advisory_lock_shared(2)",
    "listening": "listen one; listen two; notify one, 'x'",
    "cursors": "declare c cursor with hold for select generate_series(1, 10000)",
    "dropped statements": "deallocate all",
    "discarded": "discard all",
}


@pytest.mark.parametrize("leak", LEAKS)
async def test_the_next_user_of_a_connection_finds_it_clean(dsn, tmp_path, connection, leak):
    async def leaks(context: Context) -> None:
        async with context.connection() as lent:
            assert await lent.fetchval("select $1::int", 7) == 7  # prepared, and kept by the driver
            await lent.execute(LEAKS[leak])

    async def looks(context: Context) -> Any:
        async with context.connection() as lent:
            assert await lent.fetchval("select $1::int", 7) == 7
            return dict(await lent.fetchrow(LEFT))

    await connection.execute("create table kept (n int)")
    DO.update(leaks=leaks, looks=looks)
    async with daemon(configured_with(dsn, tmp_path, database='search_path = "public"\nsteps = 1')):
        for _ in range(2):
            first = await enqueue(connection, "hostile", {"do": "leaks"}, max_attempts=1)
            await until(connection, DONE, first)
            second = await enqueue(connection, "hostile", {"do": "looks"}, max_attempts=1)
            await until(connection, "select finished_at is not null from worker.job_queue where id = $1", second)
            found = await row(connection, second)
            assert (found["status"], message(found)) == ("completed", "")
            assert orjson.loads(found["result"]) == CLEAN
    assert await connection.fetchval("select count(*) from kept") == 0


async def test_connections_that_are_not_given_back_come_back_with_the_handlers_end(dsn, tmp_path, connection):
    """Ended in the middle, thrown away, and inside a transaction: the pool has one connection, and the next gets it."""

    async def throws_away(context: Context) -> None:
        lending = context.connection()
        lent = await lending.__aenter__()
        await lent.execute("begin; insert into kept values (1)")

    async def ends_inside(context: Context) -> None:
        async with context.connection() as lent, lent.transaction():
            await lent.execute("insert into kept values (1)")
            raise SystemExit(1)

    async def cancelled_inside(context: Context) -> None:
        async with context.connection() as lent, lent.transaction():
            await lent.execute("insert into kept values (1)")
            await lent.execute("select pg_sleep(600)")

    async def works(context: Context) -> Any:
        async with context.connection() as lent:
            return dict(await lent.fetchrow(LEFT))

    await connection.execute("create table kept (n int)")
    DO.update({each.__name__: each for each in (throws_away, ends_inside, cancelled_inside, works)})
    async with daemon(configured_with(dsn, tmp_path, timeout="1s", database='search_path = "public"\nsteps = 1')):
        for name in ("throws_away", "ends_inside", "cancelled_inside", "throws_away"):
            bad = await enqueue(connection, "hostile", {"do": name}, max_attempts=1)
            await until(connection, "select finished_at is not null from worker.job_queue where id = $1", bad)
            good = await enqueue(connection, "hostile", {"do": "works"}, max_attempts=1)
            await until(connection, "select finished_at is not null from worker.job_queue where id = $1", good)
            found = await row(connection, good)
            assert (found["status"], message(found)) == ("completed", "")
            assert orjson.loads(found["result"]) == CLEAN
    assert await connection.fetchval("select count(*) from kept") == 0


# --- any text at all

ANY = st.text(st.characters(codec=None), max_size=40)  # surrogates and NUL are among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY | st.integers(), inner, max_size=3),
    max_leaves=8,
)
CASES = st.lists(
    st.tuples(st.sampled_from(["error", "result", "skip", "cancel", "progress"]), VALUES, ANY), min_size=1, max_size=20
)


async def test_the_verdict_of_any_text_is_written(config, connection):
    """One daemon for all examples: what one of them breaks, the next would meet."""
    tried: list[list[tuple[str, Any, str]]] = []

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(CASES)
    def collect(cases: list[tuple[str, Any, str]]) -> None:
        tried.append(cases)

    collect()  # before the daemon is there, whose threads draw random numbers that hypothesis takes for its own
    cases = [case for each in tried for case in each]

    async def say(context: Context) -> Any:
        how, value, text = cases[context.payload["case"]]
        if how == "error":
            raise ValueError(text, value)
        if how == "progress":
            await context.progress(text[:10].replace("\x00", "").encode(errors="replace").decode(), value=value)
        return {"result": value, "skip": Skipped(text), "cancel": Cancelled(text)}.get(how)

    DO["say"] = say
    for number in range(len(cases)):
        await enqueue(connection, "hostile", {"do": "say", "case": number}, max_attempts=1)
    async with daemon(config) as (_, task, _me):
        await until(connection, ENDED)
        assert not task.done()
    expected = {
        "error": "failed",
        "result": "completed",
        "skip": "skipped",
        "cancel": "cancelled",
        "progress": "completed",
    }
    rows = await connection.fetch("select (payload->>'case')::int as number, status, errors from worker.job_queue")
    wrong = {
        cases[each["number"]]: message(each) for each in rows if each["status"] != expected[cases[each["number"]][0]]
    }
    assert (wrong, len(rows)) == ({}, len(cases))
