"""Bulks: what a filter finds, what a preview tells, what pages do, and who is told to have done it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, refused

Session = Callable[..., Awaitable[Queue]]


async def failed(queue: Queue, job_type: str = "report", status: str = "failed", **columns: Any) -> int:
    """A job that ended an hour before noon with the error "Timeout of X", unless columns say otherwise."""
    named = {name: columns.pop(name) for name in ("tenant_id", "unique_key") if name in columns}
    job = await queue.enqueue(job_type, **named)
    given = {
        "status": status, "trouble": True, "queued": False, "held_key": None, "finish_reason": "exhausted",
        "started_at": NOON - timedelta(hours=2), "finished_at": NOON - timedelta(hours=1),
        "errors": json.dumps([{"attempt": 1, "at": str(NOON), "message": "Timeout of X"}]), **columns,
    }  # fmt: skip
    listed = ", ".join(f"{name} = ${number}" for number, name in enumerate(given, start=2))
    await queue.db.execute(f"update worker.job_queue set {listed} where id = $1", job, *given.values())
    return job


async def preview(queue: Queue, verb: str, **filter: Any) -> dict[str, Any]:
    return json.loads(await queue.db.fetchval("select worker.bulk_preview($1, $2)", verb, json.dumps(filter)))


async def begin(queue: Queue, verb: str, filter: dict[str, Any], **options: Any) -> int:
    listed = "".join(f", {name} => ${number}" for number, name in enumerate(options, start=3))
    return await queue.db.fetchval(
        f"select worker.bulk_begin($1, $2{listed})", verb, json.dumps(filter), *options.values()
    )


async def pages(queue: Queue, bulk: int, n: int = 500) -> AsyncIterator[asyncpg.Record]:
    while True:
        page = await queue.db.fetchrow("select * from worker.bulk_page($1, $2)", bulk, n)
        assert page is not None
        yield page
        if not page["more"]:
            return


async def carry_out(
    queue: Queue, verb: str, filter: dict[str, Any], n: int = 500, **options: Any
) -> tuple[int, list[dict[str, Any]]]:
    """A whole bulk: how many were done, and the refusals."""
    bulk = await begin(queue, verb, filter, **options)
    answers = [page async for page in pages(queue, bulk, n)]
    refusals = [refusal for page in answers for refusal in json.loads(page["refusals"])]
    assert sum(page["refused"] for page in answers) == len(refusals)
    return sum(page["done"] for page in answers), refusals


async def events(queue: Queue, event: str) -> list[tuple[int | None, str, dict[str, Any]]]:
    rows = await queue.db.fetch(
        "select job_id, actor, detail from worker.job_event where event = $1 order by id", event
    )
    return [(row["job_id"], row["actor"], json.loads(row["detail"])) for row in rows]


@pytest.fixture(autouse=True)
async def noon(queue: Queue) -> None:
    await queue.clock(NOON)
    await queue.declare_all({"name": "report"}, {"name": "other"})


class TestFilter:
    @pytest.mark.parametrize(
        ("verb", "filter", "says"),
        [
            ("retry", {}, "names something"),
            ("retry", None, "names something"),
            ("retry", [1], "names something"),
            ("retry", {"type": None}, "names something"),
            ("retry", {"typ": "report"}, 'no key "typ"'),
            ("retry", {"type": ""}, "type is a text"),
            ("retry", {"type": 1}, "type is a text"),
            ("retry", {"status": "pending"}, "status is one of failed, cancelled"),
            ("cancel", {"status": "failed"}, "status is one of pending, running"),
            ("cancel", {"finish_reason": "timeout"}, 'no key "finish_reason"'),
            ("retry", {"since": "soon"}, "since is no time"),
            ("retry", {"until": "2026-13-01"}, "until is no time"),
            ("retry", {"ids": []}, "ids are"),
            ("retry", {"ids": [1, "2"]}, "ids are"),
            ("retry", {"ids": [0]}, "ids are"),
            ("retry", {"ids": [1.5]}, "ids are"),
            ("retry", {"ids": [10**30]}, "ids are"),
            ("retry", {"ids": "1"}, "ids are"),
            ("delete", {"type": "report"}, "does not delete"),
            (None, {"type": "report"}, "does not null"),
        ],
    )
    async def test_refuses(self, queue: Queue, verb: str | None, filter: object, says: str) -> None:
        for call in ("bulk_preview", "bulk_begin"):
            with refused("WK024", says):
                await queue.db.execute(f"select worker.{call}($1, $2)", verb, json.dumps(filter))
        assert await queue.count("worker.job_event") == 0

    @pytest.mark.parametrize(
        ("filter", "found"),
        [
            ({"type": "report"}, ["plain", "reason", "error", "tenant", "old"]),
            ({"type": "report", "status": "cancelled"}, ["cancelled"]),
            ({"finish_reason": "timeout"}, ["reason"]),
            ({"error": "100% full\\"}, ["error"]),
            ({"error": "TIMEOUT OF x", "type": "other"}, ["other"]),
            ({"tenant": "a"}, ["tenant"]),
            ({"since": "2026-11-21T10:59:00Z", "type": "report"}, ["plain", "reason", "error", "tenant"]),
            ({"until": "2026-11-21 08:00+00"}, ["old"]),
            ({"since": "2026-11-21T11:00:00Z", "until": "2026-11-21T11:00:00Z", "type": "other"}, ["other"]),
            ({"type": "nobodys"}, []),
        ],
    )
    async def test_finds_for_a_retry(self, queue: Queue, filter: dict[str, Any], found: list[str]) -> None:
        names = {
            await failed(queue): "plain",
            await failed(queue, finish_reason="timeout"): "reason",
            await failed(queue, errors='[{"message": "Disk is 100% FULL\\\\"}]'): "error",
            await failed(queue, tenant_id="a"): "tenant",
            await failed(queue, finished_at=NOON - timedelta(hours=4)): "old",
            await failed(queue, "other"): "other",
            await failed(queue, status="cancelled", finish_reason="cancelled"): "cancelled",
            await queue.enqueue("report"): "pending",
        }
        shown = await preview(queue, "retry", **filter)
        assert ([names[job["id"]] for job in shown["sample"]], shown["count"]) == (found, len(found))
        assert (await carry_out(queue, "retry", filter))[0] == len(found)
        due = await queue.db.fetch("select id from worker.job_queue where status = 'pending' order by id")
        assert [names[id] for (id,) in due] == [*found, "pending"]

    async def test_ids_may_name_what_was_cancelled(self, queue: Queue) -> None:
        jobs = [await failed(queue), await failed(queue, status="cancelled"), await queue.enqueue("report")]
        assert (await preview(queue, "retry", ids=[*jobs, 99]))["count"] == 2
        assert (await preview(queue, "retry", ids=jobs, status="failed"))["count"] == 1
        assert (await preview(queue, "cancel", ids=jobs))["count"] == 1

    @pytest.mark.parametrize(
        ("filter", "found"),
        [
            ({"type": "report"}, ["retrying", "pending", "later", "tenant", "running"]),
            ({"type": "report", "status": "running"}, ["running"]),
            ({"tenant": "a"}, ["tenant"]),
            ({"status": "pending"}, ["retrying", "pending", "later", "tenant", "other"]),
            ({"error": "boom"}, ["retrying"]),
            ({"since": "2026-11-21T12:01:00Z"}, ["later"]),
        ],
    )
    async def test_finds_for_a_cancel(self, queue: Queue, filter: dict[str, Any], found: list[str]) -> None:
        names = {await queue.enqueue("report"): "retrying", await queue.enqueue("report"): "pending"}
        await queue.db.execute('update worker.job_queue set errors = \'[{"message": "boom"}]\' where id = 1')
        await queue.clock(NOON + timedelta(minutes=2))
        names[await queue.enqueue("report", delay=timedelta(hours=1))] = "later"
        await queue.clock(NOON)
        names |= {await queue.enqueue("report", tenant_id="a"): "tenant", await queue.enqueue("other"): "other"}
        running = await queue.enqueue("report", priority=1)
        assert [job["id"] for job in await queue.take(1)] == [running]
        names |= {running: "running", await failed(queue): "failed"}
        await queue.clock(NOON + timedelta(minutes=3))
        shown = await preview(queue, "cancel", **filter)
        assert [names[job["id"]] for job in shown["sample"]] == found
        assert (await carry_out(queue, "cancel", filter, reason="flood"))[0] == len(found)
        asked = await queue.db.fetch(
            "select id from worker.job_queue where cancel_requested_at is not null and cancel_reason = 'flood'"
            " order by id"
        )
        assert [names[id] for (id,) in asked] == found
        assert (await preview(queue, "cancel", **filter))["count"] == 0


class TestPreview:
    async def test_groups_and_a_sample_from_all_over(self, queue: Queue) -> None:
        jobs = [await failed(queue) for _ in range(10)]
        await failed(queue, finish_reason="timeout")
        row = await queue.db.fetchval("select worker.bulk_preview('retry', '{\"type\": \"report\"}', 3)")
        shown = json.loads(row)
        assert (shown["verb"], shown["count"], shown["more"]) == ("retry", 11, False)
        assert shown["filter"] == {"type": "report", "status": "failed"}
        assert shown["groups"] == [
            {"job_type": "report", "status": "failed", "finish_reason": reason, "count": count}
            for reason, count in (("exhausted", 10), ("timeout", 1))
        ]
        assert [job["id"] for job in shown["sample"]] == [jobs[0], jobs[3], jobs[7]]
        assert shown["sample"][0]["error"] == "Timeout of X"
        assert await queue.count("worker.job_event") == 0

    async def test_nothing(self, queue: Queue) -> None:
        shown = await preview(queue, "cancel", type="report")
        assert (shown["count"], shown["groups"], shown["sample"], shown["more"]) == (0, [], [], False)

    async def test_says_that_it_did_not_look_at_all(self, queue: Queue) -> None:
        await queue.db.execute("insert into worker.job_queue (job_type) select 'report' from generate_series(1, 5001)")
        call = "select worker.bulk_preview('cancel', '{\"type\": \"report\"}', 1, $1)"
        looks = [json.loads(await queue.db.fetchval(call, look)) for look in (5000, 10000)]
        assert [(shown["count"], shown["more"]) for shown in looks] == [(5000, True), (5001, False)]


class TestRetry:
    async def test_in_pages_that_end_and_each_job_once(self, queue: Queue) -> None:
        jobs = [await failed(queue) for _ in range(7)]
        bulk = await begin(queue, "retry", {"type": "report"})
        done = []
        async for page in pages(queue, bulk, 3):
            done.append((page["done"], page["refused"], page["more"]))
            # What fails again while the bulk goes on is not meant.
            await queue.db.execute(
                "update worker.job_queue set status = 'failed', trouble = true, queued = false, finished_at = $1"
                " where status = 'pending'",
                NOON + timedelta(seconds=1),
            )
        assert done == [(3, 0, True), (3, 0, True), (1, 0, False)]
        retried = await events(queue, "retry")
        assert [(job, detail["bulk"]) for job, _, detail in retried] == [(job, bulk) for job in jobs]
        ((_, _, state),) = await events(queue, "bulk_retry")
        assert (state["done"], state["refused"], state["more"]) == (7, 0, False)
        async for page in pages(queue, bulk):
            assert page["done"] == 0

    async def test_a_rate_spreads_the_due_times_over_all_pages(self, queue: Queue) -> None:
        jobs = [await failed(queue, unique_key=str(number)) for number in range(5)]
        await queue.db.execute("update worker.job_queue set unique_while = 'active' where id = $1", jobs[1])
        await queue.enqueue("report", unique_key="1", on_conflict="keep")
        await queue.db.execute("update worker.job_queue set unique_while = 'active', held_key = '1' where id = 6")
        done, refusals = await carry_out(queue, "retry", {"ids": jobs}, n=2, rate=0.5)
        assert (done, [(each["id"], each["code"], each["holder"]) for each in refusals]) == (4, [(2, "WK003", 6)])
        due = await queue.db.fetch("select scheduled_at from worker.job_queue where id = any ($1) order by id", jobs)
        told = [(at - NOON).total_seconds() for (at,) in due]
        assert told == [0, 0, 2, 4, 6]  # the second one stays as it was: the others do not wait for it

    async def test_keeps_steps_unless_fresh(self, queue: Queue) -> None:
        for fresh, left in ((False, 1), (True, 0)):
            job = await failed(queue)
            await queue.db.execute(
                "insert into worker.job_step (job_id, name, status, claim) values ($1, 'a', 'completed', 1)", job
            )
            await carry_out(queue, "retry", {"ids": [job]}, fresh=fresh)
            assert await queue.db.fetchval("select count(*) from worker.job_step where job_id = $1", job) == left

    async def test_refusals_are_listed_and_not_fatal(self, queue: Queue, session: Session) -> None:
        await queue.declare("keyed", unique_key="{club}")
        invalid = await queue.enqueue("keyed")
        assert (await queue.row(invalid))["finish_reason"] == "invalid"
        locked, fine = await failed(queue), await failed(queue)
        other = await session()
        transaction = other.db.transaction()
        await transaction.start()
        await other.db.execute("select from worker.job_queue where id = $1 for update", locked)
        done, refusals = await carry_out(queue, "retry", {"ids": [invalid, locked, fine]})
        await transaction.rollback()
        assert (done, {each["id"]: each["code"] for each in refusals}) == (1, {invalid: "WK020", locked: "55P03"})
        assert await queue.statuses() == {invalid: "failed", locked: "failed", fine: "pending"}

    async def test_a_holder_not_yet_committed_refuses_after_a_moment(self, queue: Queue, session: Session) -> None:
        await queue.declare("report", unique_key="one", unique_while="active")
        job = await failed(queue)
        producer = await session()
        transaction = producer.db.transaction()
        await transaction.start()
        await producer.enqueue("report")
        _, refusals = await carry_out(queue, "retry", {"type": "report"})
        await transaction.rollback()
        assert [(each["id"], each["code"]) for each in refusals] == [(job, "55P03")]

    async def test_wakes_a_daemon_for_what_is_due(self, queue: Queue, second: asyncpg.Connection) -> None:
        heard: list[object] = []
        await second.add_listener("worker", lambda *said: heard.append(said[3]))
        jobs = [await failed(queue) for _ in range(3)]
        sleeper = await queue.register(["report"])
        await queue.db.execute("select worker.sleep($1, 60)", sleeper)
        await carry_out(queue, "retry", {"ids": jobs})
        await second.execute("select 1")
        assert heard == [str(sleeper)]


class TestCancel:
    async def test_pending_end_and_running_are_asked(self, queue: Queue) -> None:
        jobs = [await queue.enqueue("report") for _ in range(5)]
        await queue.take(2)
        bulk = await begin(queue, "cancel", {"type": "report"}, reason="flood")
        later = await queue.enqueue("other")
        assert [(page["done"], page["more"]) async for page in pages(queue, bulk, 2)] == [
            (2, True),
            (2, True),
            (1, False),
        ]
        assert await queue.statuses() == {
            **dict.fromkeys(jobs, "cancelled"),
            1: "running",
            2: "running",
            later: "pending",
        }
        told = [
            (job, detail["was"], detail["reason"], detail["bulk"]) for job, _, detail in await events(queue, "cancel")
        ]
        assert sorted(told) == [(job, "running" if job < 3 else "pending", "flood", bulk) for job in jobs]

    async def test_what_comes_after_it_began_is_not_meant(self, queue: Queue) -> None:
        first = await queue.enqueue("report")
        bulk = await begin(queue, "cancel", {"type": "report"})
        await queue.clock(NOON + timedelta(seconds=1))
        later = await queue.enqueue("report")
        assert [page["done"] async for page in pages(queue, bulk)] == [1]
        assert await queue.statuses() == {first: "cancelled", later: "pending"}

    async def test_ends_parked_ones_too(self, queue: Queue) -> None:
        await queue.declare("report", concurrency_key="line")
        jobs = [await queue.enqueue("report") for _ in range(3)]
        await queue.take()
        assert (await carry_out(queue, "cancel", {"status": "pending"}))[0] == 2
        assert await queue.statuses() == {jobs[0]: "running", jobs[1]: "cancelled", jobs[2]: "cancelled"}


class TestOptions:
    @pytest.mark.parametrize(
        ("verb", "options", "says"),
        [
            ("cancel", {"rate": 1.0}, "a rate is for a bulk retry"),
            ("retry", {"rate": 0.0}, "jobs a second"),
            ("retry", {"rate": float("nan")}, "jobs a second"),
            ("retry", {"rate": float("inf")}, "jobs a second"),
            ("cancel", {"fresh": True}, "fresh is for a bulk retry"),
            ("retry", {"reason": "x"}, "a reason is for a bulk cancel"),
            ("cancel", {"reason": "x" * 1001}, "1000 bytes"),
        ],
    )
    async def test_refused(self, queue: Queue, verb: str, options: dict[str, Any], says: str) -> None:
        with refused("WK024", says):
            await begin(queue, verb, {"type": "report"}, **options)

    @pytest.mark.parametrize("bulk", [99, None])
    async def test_unknown_bulk(self, queue: Queue, bulk: int | None) -> None:
        with refused("WK025", "no bulk"):
            await queue.db.execute("select worker.bulk_page($1)", bulk)

    async def test_no_other_event_is_a_bulk(self, queue: Queue) -> None:
        await queue.db.execute("select worker.pause('report')")
        event = await queue.db.fetchval("select max(id) from worker.job_event")
        with refused("WK025"):
            await queue.db.execute("select worker.bulk_page($1)", event)


class TestActor:
    async def deeds(self, queue: Queue, someone: Queue) -> set[tuple[str, str | None]]:
        """Everything that leaves an event, done once; answers with actor and login of the events."""
        jobs = [await failed(queue), await failed(queue), await queue.enqueue("report"), await queue.enqueue("report")]
        await someone.db.execute("select worker.retry($1)", jobs[0])
        await someone.db.execute("select worker.cancel($1)", jobs[2])
        await carry_out(someone, "retry", {"ids": [jobs[1]]})
        await carry_out(someone, "cancel", {"ids": [jobs[3]]})
        await someone.db.execute("select worker.pause('report'), worker.resume('report')")
        rows = await queue.db.fetch(
            "select event, actor, detail ->> 'login' as login from worker.job_event order by id"
        )
        assert [row["event"] for row in rows] == [
            "retry", "cancel", "bulk_retry", "retry", "bulk_cancel", "cancel", "pause", "resume",
        ]  # fmt: skip
        return {(row["actor"], row["login"]) for row in rows}

    async def test_is_the_role(self, queue: Queue, session: Session, roles: dict[str, str]) -> None:
        assert await self.deeds(queue, await session("operator")) == {(roles["operator"], None)}

    async def test_is_whom_an_operator_names(self, queue: Queue, session: Session, roles: dict[str, str]) -> None:
        operator = await session("operator")
        await operator.db.execute("set worker.actor = 'web:night'")
        assert await self.deeds(queue, operator) == {("web:night", roles["operator"])}

    async def test_nobody_else_may_name_another(self, queue: Queue, session: Session, roles: dict[str, str]) -> None:
        app = await session("app", **{"worker.actor": "web:boss", "worker.bulk": "7"})
        job = await app.enqueue("report")
        await app.db.execute("select worker.cancel($1)", job)
        assert await events(queue, "cancel") == [(job, roles["app"], {"was": "pending"})]


@pytest.mark.parametrize("role", ["reader", "runner", "app", "tenant", "nobody"])
async def test_for_operators_only(session: Session, role: str) -> None:
    someone = await session(role)
    calls = (
        "preview('retry', '{}')",
        "begin('retry', '{}')",
        "page(1)",
        "retry('{}', now(), 1, false, 1)",
        "cancel('{}', '', 1)",
    )
    for call in (*(f"bulk_{call}" for call in calls), "note_deed(1, '', '{}')"):
        with refused("42501"):
            await someone.db.execute(f"select * from worker.{call}")
