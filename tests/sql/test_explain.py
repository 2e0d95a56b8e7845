"""worker.explain_job: every situation is made for real, and a reader is told the code and what they need to know."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tests.sql.conftest import NOON, Queue, refused, verdict

Session = Callable[..., Awaitable[Queue]]
Arrange = Callable[[Queue], Awaitable[int]]
HTTP = {"enabled": False, "fallback": True}


@dataclass(frozen=True)
class Situation:
    """How a job came to be where it is, and what is to be said of it."""

    arrange: Arrange
    code: str
    tells: tuple[str, ...]


SITUATIONS: list[Situation] = []


def situation(code: str, *tells: str) -> Callable[[Arrange], Arrange]:
    """The situation that a function makes; `{}` in what is told is the number of the job."""

    def keep(arrange: Arrange) -> Arrange:
        SITUATIONS.append(Situation(arrange, code, tells))
        return arrange

    return keep


async def step(queue: Queue, job: int, claim: int, name: str) -> None:
    await queue.db.execute(
        "insert into worker.job_step (job_id, name, status, claim, started_at) values ($1, $2, 'running', $3,"
        " clock_timestamp() - interval '7 s')",
        job, name, claim,
    )  # fmt: skip


async def ended(queue: Queue, status: str, reason: str | None, **fields: object) -> int:
    job = await queue.enqueue("report")
    (claimed,) = await queue.take()
    await queue.settle(verdict(claimed, status, reason=reason, **fields))
    return job


@situation(
    "running", "Process 1 (1 on host) runs its attempt 1 of 5", "since 90.0 s", "step facts for 7", "`worker cancel {}`"
)
async def runs(queue: Queue) -> int:
    job = await queue.enqueue("report")
    (claimed,) = await queue.take()
    await step(queue, job, claimed["claim"], "facts")
    await queue.clock(NOON + timedelta(seconds=90))
    await queue.db.execute("update worker.process set lease_until = 'infinity'")
    return job


@situation("running", "it was asked to end by", "at 20", ": wrong month")
async def runs_and_was_asked_to_end(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.take()
    await queue.db.execute("select worker.cancel($1, 'wrong month')", job)
    return job


@situation("running", "Process 1 (1 on host, dead since 10.0 s)", "another daemon takes it over")
async def runs_in_a_daemon_that_died(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.take()
    await queue.db.execute("update worker.process set dead_at = worker.now() - interval '10 s'")
    return job


@situation("running", "not heard of for 2 min", "another daemon takes it over")
async def runs_in_a_daemon_that_is_silent(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.take()
    await queue.clock(NOON + timedelta(minutes=2))
    return job


@situation("done", "It is completed since 2026-11-21 12:00:00+00, after 1 of 5 attempts.")
async def completed(queue: Queue) -> int:
    return await ended(queue, "completed", None)


@situation("done", "by an HTTP call, as its type was off")
async def completed_by_its_fallback(queue: Queue) -> int:
    return await ended(queue, "completed", "fallback")


@situation("done", "It is skipped", "no_op")
async def skipped(queue: Queue) -> int:
    return await ended(queue, "skipped", "no_op")


@situation("done", "the source match of report is off", "worker.toml")
async def source_is_off(queue: Queue) -> int:
    job = await queue.enqueue("report", source="match")
    (claimed,) = await queue.take()
    await queue.settle(verdict(claimed, "skipped", reason="source_off"))
    return job


@situation("done", "after all of its 5 attempts", "its last error: no route", "`worker retry {}`, or worker.retry({})")
async def exhausted(queue: Queue) -> int:
    return await ended(queue, "failed", "exhausted", error="no route")


@situation("done", "trying again is of no use", "its last error: 410", "worker.retry")
async def failed_for_good(queue: Queue) -> int:
    return await ended(queue, "failed", "permanent", error="410")


@situation("done", "its attempt took too long", "worker.retry")
async def timed_out(queue: Queue) -> int:
    return await ended(queue, "failed", "timeout", error="after 5 min")


@situation("done", "past its deadline, 2026-11-21 12:01:00+00")
async def past_its_deadline(queue: Queue) -> int:
    await queue.declare("report", deadline=60)
    return await ended(queue, "failed", "deadline", error="late")


@situation("done", "daemons died while they ran it")
async def poison(queue: Queue) -> int:
    return await ended(queue, "failed", "poison", error="lease expired")


@situation("done", "its payload cannot be used", "the payload lacks a name that unique_key")
async def invalid(queue: Queue) -> int:
    await queue.declare("report", unique_key="{club}")
    return await queue.enqueue("report")


@situation("done", "It is cancelled", "cancelled by", ": not needed", "worker.retry")
async def cancelled(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.db.execute("select worker.cancel($1, 'not needed')", job)
    return job


@situation("scheduled_later", "until 2026-11-21 15:00:00+00, in 3 h", "as its producer wanted")
async def scheduled_later(queue: Queue) -> int:
    return await queue.enqueue("report", delay=timedelta(hours=3))


@situation("scheduled_later", "snoozed until", "in 60.0 s", "for the 1. time of 1000")
async def snoozed(queue: Queue) -> int:
    job = await queue.enqueue("report")
    (claimed,) = await queue.take()
    await queue.settle(verdict(claimed, "pending", delay=60.0, counted=False, snoozed=True))
    return job


@situation("scheduled_later", "in 60.0 s", "2 jobs of report were pending when it came, as many as its backlog allows")
async def delayed_by_a_backlog(queue: Queue) -> int:
    await queue.declare("report", backlog={"max": 2, "then": "delay"})
    return [await queue.enqueue("report") for _ in range(3)][-1]


@situation("scheduled_later", "in 2 min", "retried by web:night at 20")
async def retried_by_a_bulk_with_a_rate(queue: Queue) -> int:
    await ended(queue, "failed", "exhausted")
    job = await ended(queue, "failed", "exhausted")
    await queue.db.execute("set worker.actor = 'web:night'")
    bulk = await queue.db.fetchval("select worker.bulk_begin('retry', '{\"type\": \"report\"}', 1 / 120.0)")
    await queue.db.execute("select worker.bulk_page($1)", bulk)
    return job


@situation(
    "retry_backoff", "Attempt 1 of 5 failed (boom)", "due at 2026-11-21 12:01:00+00, in 60.0 s", "`worker cancel {}`"
)
async def retry_backoff(queue: Queue) -> int:
    job = await queue.enqueue("report")
    (claimed,) = await queue.take()
    await queue.settle(verdict(claimed, "pending", delay=60.0, error="boom"))
    return job


@situation("retry_backoff", 'The last call for its coalesce key "coalesce report', "due at 2026-11-21 12:01:00+00")
async def goes_along_with_a_call_that_failed(queue: Queue) -> int:
    await queue.declare("report", coalesce_key="cache")
    await queue.enqueue("report")
    (claimed,) = await queue.take()
    await queue.settle(verdict(claimed, "pending", delay=60.0, error="503"))
    job = await queue.enqueue("report")
    assert await queue.take() == []
    return job


@situation(
    "rate_limited",
    "at a rate of 1 in 90 s",
    'no token for its key "site"',
    "booked for 2026-11-21 12:01:30+00, in 90.0 s",
)
async def rate_limited(queue: Queue) -> int:
    await queue.declare("report", rate={"limit": 1, "per": 90, "key": "site"})
    job = [await queue.enqueue("report") for _ in range(2)][1]
    await queue.claim()
    return job


@situation("type_paused", "paused by web:night since 20", "worker.resume('report')", "`worker resume report`")
async def type_paused(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.db.execute("set worker.actor = 'web:night'")
    await queue.db.execute("select worker.pause('report')")
    return job


@situation("type_disabled", "`enabled = false` under [job.report]")
async def type_disabled(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.declare("report", enabled=False)
    return job


@situation("should_run_now", "Its type is off, so it runs as its fallback")
async def type_disabled_with_a_fallback(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.declare("report", **HTTP)
    return job


@situation("no_worker_for_type", "Nobody declared the type unheard_of", "`worker migrate`")
async def undeclared(queue: Queue) -> int:
    return await queue.enqueue("unheard_of")


@situation("no_worker_for_type", "1 daemon(s) are alive", "worker.enabled = false", "process 1 (1 on host)")
async def no_worker_for_type(queue: Queue) -> int:
    await queue.declare("other")
    return await queue.enqueue("other")


@situation("no_worker_alive", "the last one was process 1 (1 on host, dead since 60.0 s)", "`worker run`")
async def no_worker_alive_but_one_dead(queue: Queue) -> int:
    await queue.db.execute("update worker.process set dead_at = worker.now() - interval '1 min'")
    return await queue.enqueue("report")


@situation("no_worker_alive", "stopped 60.0 s ago")
async def no_worker_alive_but_one_stopped(queue: Queue) -> int:
    await queue.db.execute("update worker.process set stopped_at = worker.now() - interval '1 min'")
    return await queue.enqueue("report")


@situation("no_worker_alive", "not heard of for 10 min")
async def no_worker_alive_but_one_silent(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.clock(NOON + timedelta(minutes=10))
    return job


@situation("no_worker_alive", "No daemon is alive: start one")
async def no_worker_at_all(queue: Queue) -> int:
    await queue.db.execute("delete from worker.process")
    return await queue.enqueue("report")


@situation("type_limit", "its limit of 2 allows: 1, 2. Each", "1 job of its type is before it")
async def type_limit(queue: Queue) -> int:
    await queue.declare("report", limit=2)
    job = [await queue.enqueue("report") for _ in range(4)][-1]
    await queue.claim()
    return job


@situation(
    "concurrency_key_busy",
    '"line", which job 1 holds: process 1 (1 on host) runs it since 0.0 s',
    "1 job is in that line",
)
async def concurrency_key_busy(queue: Queue) -> int:
    job = [await queue.enqueue("report", concurrency_key="line") for _ in range(3)][-1]
    await queue.take()
    return job


@situation("concurrency_key_busy", "which job 1 holds", "nobody is in that line")
async def key_busy_and_not_parked_yet(queue: Queue) -> int:
    await queue.enqueue("report", concurrency_key="line")
    await queue.take()
    return await queue.enqueue("report", concurrency_key="line")


@situation("concurrency_key_busy", "which nobody holds at this moment", "1 job is in that line")
async def parked_behind_nobody(queue: Queue) -> int:
    first, _, job = [await queue.enqueue("report", concurrency_key="line") for _ in range(3)]
    await queue.take()
    await queue.db.execute("delete from worker.key_slot")
    await queue.db.execute("delete from worker.job_queue where id = $1", first)
    return job


@situation("expired", "at 2026-11-21 12:01:00+00, and is ended within a second")
async def expired_and_not_ended_yet(queue: Queue) -> int:
    job = await queue.enqueue("report", expires_at=NOON + timedelta(minutes=1))
    await queue.clock(NOON + timedelta(hours=1))
    return job


@situation("expired", "at 2026-11-21 12:01:00+00: enqueue it anew")
async def expired(queue: Queue) -> int:
    job = await expired_and_not_ended_yet(queue)
    await queue.sweep()
    assert (await queue.row(job))["status"] == "skipped"
    return job


@situation("should_run_now", "due since 3.0 s", "no job of its type is before it", "with 0 of 10 slots taken")
async def should_run_now(queue: Queue) -> int:
    job = await queue.enqueue("report")
    await queue.clock(NOON + timedelta(seconds=3))
    return job


@situation("should_run_now", "3 jobs of its type are before it, but tenants take turns")
async def should_run_in_turn(queue: Queue) -> int:
    await queue.declare("report", fair=True)
    return [await queue.enqueue("report", tenant_id=tenant) for tenant in "aaab"][-1]


@situation("should_run_now", "All 10 slots of the daemon that runs its type are taken", "[worker] concurrency")
async def nobody_has_room(queue: Queue) -> int:
    job = [await queue.enqueue("report") for _ in range(11)][-1]
    await queue.take(10)
    return job


@situation("should_run_now", "It will be skipped: its source match is off")
async def source_will_be_off(queue: Queue) -> int:
    await queue.declare("report", sources={"match": False})
    return await queue.enqueue("report", source="match")


@situation("should_run_now", "Its source match is off, so it runs as the fallback")
async def source_off_with_a_fallback(queue: Queue) -> int:
    await queue.declare("report", sources={"match": False}, fallback=True)
    return await queue.enqueue("report", source="match")


@pytest.fixture(autouse=True)
async def a_daemon(queue: Queue) -> None:
    await queue.db.execute("set timezone = 'UTC'")
    await queue.clock(NOON)
    await queue.declare("report")
    await queue.register(["report"])


@pytest.mark.parametrize("each", SITUATIONS, ids=lambda each: each.arrange.__name__)
async def test_says_what_holds_it_up(queue: Queue, session: Session, each: Situation) -> None:
    job = await each.arrange(queue)
    reader = await session("reader", timezone="UTC")
    row = await reader.db.fetchrow("select * from worker.explain_job($1)", job)
    assert row is not None
    assert row["code"] == each.code, row["sentence"]
    assert [part for part in each.tells if part.replace("{}", str(job)) not in row["sentence"]] == [], row["sentence"]
    assert row["sentence"].endswith(".")
    assert ".." not in row["sentence"]
    assert "  " not in row["sentence"]


async def test_unknown_job(queue: Queue) -> None:
    with refused("WK008"):
        await queue.db.execute("select worker.explain_job(99)")


async def test_every_code_of_the_comment_has_a_situation(queue: Queue) -> None:
    comment = await queue.db.fetchval("select obj_description('worker.explain_job(bigint)'::regprocedure)")
    codes = comment[comment.index("code (") + 6 : comment.index(")")].split(", ")
    assert set(codes) == {each.code for each in SITUATIONS}
