"""The whole contract at once: random calls against the SQL and against a model of it in Python.

After every call each row must be what the model says, and the promises that no single call makes must hold.
"""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.sql.conftest import NOON, Queue, verdict

FINAL = {"completed", "skipped", "failed", "cancelled"}
TYPES = {
    "plain": {},
    "waiting": {"unique_key": "{u}"},
    "active": {"unique_key": "{u}", "unique_while": "active"},
    "line": {"concurrency_key": "{c}"},
    "both": {"unique_key": "{u}", "concurrency_key": "{c}", "expires": 30},
}
TABLES = "job_queue, job_type, kept, job_event, process, key_slot, clock"


@dataclass
class Model:
    """A job as it must be; times are seconds after noon."""

    id: int
    type: str
    unique: str | None
    line: str | None
    priority: int
    due: float
    expires: float | None
    status: str = "pending"
    parked: bool = False
    started: bool = False
    attempt: int = 0
    rescues: int = 0
    snoozes: int = 0
    claim: int | None = None
    process: int | None = None
    asked: bool = False
    rescued: bool = False
    old_claims: list[int] = field(default_factory=list)

    @property
    def waiting(self) -> bool:
        return self.status == "pending" and not self.started

    @property
    def holds(self) -> bool:
        return self.unique is not None and (self.waiting if self.type != "active" else self.status not in FINAL)

    @property
    def place(self) -> tuple[int, float, int]:
        return self.priority, self.due, self.id

    def facts(self) -> tuple[object, ...]:
        pending = self.status == "pending"
        due = NOON + timedelta(seconds=self.due)
        return (
            self.id, self.status, pending and not self.parked, pending and self.parked,
            self.status in ("failed", "cancelled"), self.priority, due, self.attempt, self.claim, self.started,
            self.rescues, self.snoozes, self.holds, self.status in FINAL,
        )  # fmt: skip


FACTS = """
    select id, status, queued, parked, trouble, priority, scheduled_at, attempt, claim, started_at is not null, rescues,
      snoozes, held_key is not null, finished_at is not null
    from worker.job_queue order by id
"""
PROMISES = {
    "at most one job waits for a unique key": """
        select job_type, unique_key, tenant_id from worker.job_queue
        where unique_key is not null and status = 'pending' and started_at is null
        group by 1, 2, 3 having count(*) > 1""",
    "at most one job is active under a unique key held while active": """
        select job_type, unique_key, tenant_id from worker.job_queue
        where unique_while = 'active' and unique_key is not null and finished_at is null
        group by 1, 2, 3 having count(*) > 1""",
    "at most one job of a concurrency key runs": """
        select concurrency_key from worker.job_queue
        where concurrency_key is not null and status = 'running' group by 1 having count(*) > 1""",
    "the slots are the running jobs with a key, exactly": """
        select coalesce(s.key, j.concurrency_key), s.job_id, j.id from worker.key_slot s
        full join (select * from worker.job_queue where status = 'running' and concurrency_key is not null) j
          on j.concurrency_key = s.key and j.id = s.job_id
        where s.key is null or j.id is null""",
    "a running job belongs to a process that lives": """
        select j.id from worker.job_queue j left join worker.process p on p.id = j.claimed_by and p.dead_at is null
        where j.status = 'running' and p.id is null""",
}
STRANDED = """
    select p.id from worker.job_queue p
    where p.parked and not exists (select from worker.key_slot s where s.key = p.concurrency_key)
      and not exists (select from worker.job_queue q where q.queued and q.concurrency_key = p.concurrency_key)
"""


class TheQueue(RuleBasedStateMachine):
    """Two processes, five types, keys from a tiny alphabet."""

    dsn = ""
    loop: asyncio.AbstractEventLoop
    queue: Queue

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[int, Model] = {}
        self.claims: set[int] = set()
        self.now = 0.0
        self.run(self.queue.db.execute(f"truncate {TABLES_OF_WORKER} restart identity cascade"))
        self.run(self.queue.clock(NOON))
        self.run(self.queue.declare_all(*({"name": name, **keys} for name, keys in TYPES.items())))
        self.processes = [self.run(self.queue.register()) for _ in range(2)]

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

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
        holder = next((job for job in self.jobs.values() if job.type == type and job.unique == key and job.holds), None)
        if holder and holder.waiting and holder.expires is not None and holder.expires <= self.now:
            self.end(holder, "skipped")
            holder = None
        if holder:
            assert id == holder.id
            if holder.waiting:
                holder.priority, holder.due = min(holder.priority, priority), min(holder.due, due)
            return
        assert id > max(self.jobs, default=0)
        expires = self.now + TYPES[type]["expires"] if "expires" in TYPES[type] else None
        in_line = line if "concurrency_key" in TYPES[type] else None
        self.jobs[id] = Model(id, type, key, in_line, priority, due, expires)

    @rule(which=st.integers(0, 1), n=st.sampled_from([1, 2, 5]))
    def claim(self, which: int, n: int) -> None:
        process = self.processes[which]
        answer = self.run(self.queue.claim(n, me=process))
        due = [
            job for job in self.jobs.values()
            if job.status == "pending" and not job.parked and job.due <= self.now
            and (job.expires is None or job.expires > self.now)
        ]  # fmt: skip
        parked = self.run(self.queue.db.fetch("select id from worker.job_queue where parked"))
        newly = [self.jobs[id] for (id,) in parked if not self.jobs[id].parked]
        looked = [self.jobs[id] for id in answer.ids] + newly
        passed = [job for job in due if job not in looked]
        assert len(looked) == min(n, len(due))
        assert len(newly) == answer.parked
        assert all(job in due for job in looked)
        for job in looked:  # strict by priority over all types, by place inside a type's line
            for other in passed:
                assert job.priority <= other.priority
                assert job.type != other.type or job.place < other.place
        for line in {job.line for job in looked if job.line}:
            best = min((job for job in looked if job.line == line), key=lambda job: job.place)
            winners = [job.id for job in looked if job.line == line and job.id in answer.ids]
            assert winners == ([] if self.is_busy(line) else [best.id])
        for job in newly:
            assert job.line
            job.parked = True
        for row in answer.jobs:
            self.start(self.jobs[row["id"]], row["claim"], process)

    def start(self, job: Model, claim: int, process: int) -> None:
        assert claim not in self.claims, "a claim was used twice"
        self.claims.add(claim)
        if job.claim is not None:
            job.old_claims.append(job.claim)
        rescued = job.status == "running"
        job.attempt += not rescued
        job.status, job.started, job.claim, job.process, job.rescued = "running", True, claim, process, rescued

    @precondition(lambda self: self.running())
    @rule(
        data=st.data(),
        kind=st.sampled_from(["completed", "skipped", "failed", "cancelled", "retried", "snoozed", "released"]),
        delay=st.sampled_from([0, 5]),
        many=st.integers(1, 3),
    )
    def settle(self, data: st.DataObject, kind: str, delay: int, many: int) -> None:
        some = st.lists(st.sampled_from(self.running()), min_size=1, max_size=many, unique_by=lambda job: job.id)
        jobs = data.draw(some)
        back = kind in ("retried", "snoozed", "released")
        status = "pending" if back else kind
        fields = {"delay": float(delay), "counted": kind not in ("snoozed", "released"), "snoozed": kind == "snoozed"}
        verdicts = [verdict({"id": job.id, "claim": job.claim}, status, **fields) for job in jobs]
        answer = self.run(self.queue.settle(*verdicts, me=jobs[0].process))
        assert answer == {job.id: "cancelled" if back and job.asked else status for job in jobs}
        for job in jobs:
            job.attempt -= not fields["counted"]
            job.snoozes += kind == "snoozed"
            job.rescued = False
            if back:
                job.due = self.now + delay
            job.status = answer[job.id]
        for job in jobs:
            self.unpark(job.line)

    @precondition(lambda self: any(job.old_claims for job in self.jobs.values()))
    @rule(data=st.data(), status=st.sampled_from(["completed", "failed", "pending"]))
    def settle_stale(self, data: st.DataObject, status: str) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs.values() if job.old_claims]))
        claim = data.draw(st.sampled_from(job.old_claims))
        stale = verdict({"id": job.id, "claim": claim}, status, error="stale", keep_steps=False)
        assert self.run(self.queue.settle(stale, me=self.processes[0])) == {}

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        answer = self.run(self.queue.db.fetchval("select worker.cancel($1)", job.id))
        if job.status == "pending":
            self.end(job, "cancelled")
        elif job.status == "running":
            job.asked = True
        assert answer == job.status

    @rule(which=st.integers(0, 1))
    def die(self, which: int) -> None:
        dead, alive = self.processes[which], self.processes[1 - which]
        lost = {job.id for job in self.running() if job.process == dead}
        rescued = self.run(self.queue.bury(dead, by=alive))
        assert {row["id"] for row in rescued} == lost
        for row in rescued:
            job = self.jobs[row["id"]]
            counted = not job.rescued
            assert row["counted"] == counted
            job.rescues += counted
            self.start(job, row["claim"], alive)
        self.processes[which] = self.run(self.queue.register())

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
        rows = [tuple(row) for row in self.run(self.queue.db.fetch(FACTS))]
        assert rows == [job.facts() for _, job in sorted(self.jobs.items())]

    @invariant()
    def every_promise_holds(self) -> None:
        for promise, exceptions in PROMISES.items():
            assert self.run(self.queue.db.fetch(exceptions)) == [], promise


TABLES_OF_WORKER = ", ".join(f"worker.{table.strip()}" for table in TABLES.split(","))


def test_any_sequence_of_calls_keeps_the_contract(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(TheQueue, "loop", loop, raising=False)
    monkeypatch.setattr(TheQueue, "queue", Queue(loop.run_until_complete(asyncpg.connect(dsn))), raising=False)
    try:
        run_state_machine_as_test(
            TheQueue,
            settings=settings(
                max_examples=30,
                stateful_step_count=30,
                deadline=None,
                derandomize="CI" in os.environ,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run_until_complete(TheQueue.queue.db.close())
        loop.close()
