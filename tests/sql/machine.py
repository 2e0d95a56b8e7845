"""What people do to the queue, and what time does to it: the half of the state machine that holds no job."""

import asyncio
import json
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import asyncpg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.sql.conftest import NOON, Queue
from tests.sql.model import CLEAN, FACTS, PROMISES, STRANDED, TYPES, Model

LEASE = 30


class People(RuleBasedStateMachine):
    """Producers, tenants and operators; the clock and the sweep.

    Attributes:
        tenant: a role that may produce for tenants only.
        steps: rules that were played, over all examples.
    """

    loop: asyncio.AbstractEventLoop
    queue: Queue
    tenant: str
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[int, Model] = {}
        self.now = 0.0
        self.run(self.queue.db.execute(CLEAN))
        # A claim draws lots between types of one priority: the same calls shall come to the same again.
        self.run(self.queue.db.execute("select setseed(0.5)"))
        self.run(self.queue.clock(NOON))
        self.run(self.queue.declare_all(*({"name": name, **keys} for name, keys in TYPES.items())))
        self.processes = [self.run(self.queue.register(lease=LEASE)) for _ in range(2)]
        self.buried: list[int] = []
        self.leases = dict.fromkeys(self.processes, self.now + LEASE)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def refusal(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The answer, or the SQLSTATE of the refusal."""
        try:
            return self.run(coroutine)
        except asyncpg.PostgresError as error:
            return error.sqlstate

    def running(self) -> list[Model]:
        return [job for job in self.jobs.values() if job.status == "running"]

    def is_busy(self, line: str | None) -> bool:
        return line is not None and any(job.line == line for job in self.running())

    def end(self, job: Model, status: str) -> None:
        job.status, job.parked = status, False

    def unpark(self, line: str | None) -> int:
        behind = [job for job in self.jobs.values() if job.parked and job.line == line]
        if line is None or not behind:
            return 0
        min(behind, key=lambda job: job.place).parked = False
        return 1

    def holder(self, type: str, unique: str | None, tenant: str | None) -> Model | None:
        """Who holds the key; one that has expired while it waited is ended by the look."""
        for job in self.jobs.values():
            if job.holds and (job.type, job.unique, job.tenant) == (type, unique, tenant):
                if job.waiting and job.expires is not None and job.expires <= self.now:
                    self.end(job, "skipped")
                    return None
                return job
        return None

    @rule(
        type=st.sampled_from(sorted(TYPES)),
        unique=st.sampled_from("ab"),
        line=st.sampled_from("xy"),
        priority=st.sampled_from([0, 100, 900]),
        delay=st.sampled_from([0, 0, 5, 60]),
    )
    def enqueue(self, type: str, unique: str, line: str, priority: int, delay: int) -> None:
        due = self.now + delay
        payload = {"u": unique, "c": line}
        id = self.run(self.queue.enqueue(type, payload, priority=priority, delay=timedelta(seconds=delay)))
        key = unique if "unique_key" in TYPES[type] else None
        if holder := self.holder(type, key, None):
            assert id == holder.id
            self.keep(holder, priority, due)
            return
        self.born(Model(id, type, key, line if "concurrency_key" in TYPES[type] else None, priority, due))

    def keep(self, holder: Model, priority: int, due: float) -> None:
        if holder.waiting:
            holder.priority, holder.due = min(holder.priority, priority), min(holder.due, due)

    def born(self, job: Model) -> None:
        assert job.id > max(self.jobs, default=0)
        job.expires = self.now + TYPES[job.type]["expires"] if "expires" in TYPES[job.type] else None
        self.jobs[job.id] = job

    @rule(
        type=st.sampled_from(["theirs", "theirs", "plain"]),
        who=st.sampled_from(["t1", "t2"]),
        unique=st.sampled_from("ab"),
        priority=st.sampled_from([0, 100, 900]),
    )
    def insert_as_a_tenant(self, type: str, who: str, unique: str, priority: int) -> None:
        answer = self.refusal(self.inserted(type, who, json.dumps({"u": unique}), priority))
        if type != "theirs" or priority < 100:
            assert answer == ("WK002" if type != "theirs" else "WK005")
        elif holder := self.holder(type, unique, who):
            assert answer is None
            self.keep(holder, priority, self.now)
        else:
            self.born(Model(answer, type, unique, None, priority, self.now, tenant=who))

    async def inserted(self, type: str, who: str, payload: str, priority: int) -> int | None:
        db = self.queue.db
        claims = json.dumps({"tenant_id": who})
        async with db.transaction():
            await db.execute(f"set local session authorization {self.tenant}")
            await db.execute("select set_config('request.jwt.claims', $1, true)", claims)
            return await db.fetchval(
                "insert into worker.job_queue (job_type, payload, priority) values ($1, $2, $3) returning id",
                type, payload, priority,
            )  # fmt: skip

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        answer = self.run(self.queue.db.fetchval("select worker.cancel($1)", job.id))
        job.asked = job.asked or job.status in ("pending", "running")
        if job.status == "pending":
            self.end(job, "cancelled")
        assert answer == job.status

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), fresh=st.booleans())
    def retry(self, data: st.DataObject, fresh: bool) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        answer = self.refusal(self.queue.db.fetchval("select worker.retry($1, $2)", job.id, fresh))
        if job.status not in ("failed", "cancelled"):
            assert answer == "WK020"
            return
        assert answer == ("pending" if self.reopen(job, self.now) else "WK003")

    @precondition(lambda self: self.jobs)
    @rule(status=st.sampled_from(["failed", "cancelled"]), rate=st.sampled_from([None, 0.5]))
    def retry_many(self, status: str, rate: float | None) -> None:
        due, done, refused = self.now, 0, []
        for job in [job for _, job in sorted(self.jobs.items()) if job.status == status]:
            if self.reopen(job, due):
                due += 0 if rate is None else 1 / rate
                done += 1
            else:
                refused.append(job.id)
        page = self.bulk("retry", {"status": status}, rate)
        assert (page["done"], [each["id"] for each in json.loads(page["refusals"])]) == (done, refused)

    @precondition(lambda self: self.jobs)
    @rule(type=st.sampled_from(sorted(TYPES)))
    def cancel_many(self, type: str) -> None:
        open_jobs = [job for job in self.jobs.values() if job.type == type and job.status in ("pending", "running")]
        page = self.bulk("cancel", {"type": type}, None)
        assert (page["done"], page["refusals"]) == (sum(not job.asked for job in open_jobs), "[]")
        for job in open_jobs:
            job.asked = True
            if job.status == "pending":
                self.end(job, "cancelled")

    def bulk(self, verb: str, filter: dict[str, str], rate: float | None) -> asyncpg.Record:
        """A bulk that is one page."""
        begin = self.queue.db.fetchval("select worker.bulk_begin($1, $2, $3)", verb, json.dumps(filter), rate)
        page = self.run(self.queue.db.fetchrow("select * from worker.bulk_page($1)", self.run(begin)))
        assert not page["more"]
        return page

    def reopen(self, job: Model, due: float) -> bool:
        """Pending again, unless its key is held."""
        again = job.unique is not None and (job.type == "active" or not job.started)
        if again and self.holder(job.type, job.unique, job.tenant):
            return False
        job.status, job.due, job.asked, job.process, job.expires = "pending", due, False, None, None
        job.attempt = job.rescues = job.snoozes = 0
        return True

    @rule(seconds=st.sampled_from([1, 5, 31]))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.run(self.queue.clock(NOON + timedelta(seconds=self.now)))

    @rule()
    def sweep(self) -> None:
        touched = 0
        for job in self.jobs.values():
            if job.status == "pending" and job.expires is not None and job.expires <= self.now:
                self.end(job, "skipped")
                touched += 1
        for line in {job.line for job in self.jobs.values() if job.parked}:
            touched += 0 if self.is_busy(line) else self.unpark(line)
        assert self.run(self.queue.sweep()) == touched
        assert self.run(self.queue.db.fetch(STRANDED)) == []

    @invariant()
    def the_rows_are_what_the_model_says(self) -> None:
        type(self).steps += 1
        rows = [tuple(row) for row in self.run(self.queue.db.fetch(FACTS))]
        assert rows == [job.facts() for _, job in sorted(self.jobs.items())]

    @invariant()
    def every_promise_holds(self) -> None:
        for promise, exceptions in PROMISES.items():
            assert self.run(self.queue.db.fetch(exceptions)) == [], promise
