"""The whole contract at once: random calls against the SQL and against a model of it in Python.

After every call each row must be what the model says, and the promises that no single call makes must hold.
"""

import asyncio
import os
import uuid

import asyncpg
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.sql.conftest import Queue, verdict
from tests.sql.machine import LEASE, People
from tests.sql.model import Model, Places

NEVER = 10**9  # a claim number that nobody was given


class TheQueue(People):
    """Two processes that die and come back, types of every kind, keys from a tiny alphabet."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: set[int] = set()
        self.batches: list[tuple[int, int]] = []  # (process, claim call) that may still be closed
        self.places: str | None = None  # where the last full batch ended

    @rule(which=st.integers(0, 1), n=st.sampled_from([1, 2, 5]), on=st.booleans())
    def claim(self, which: int, n: int, on: bool) -> None:
        process = self.processes[which]
        after = Places(self.places if on else None)
        answer = self.run(self.queue.claim(n, me=process, after=after.told))
        self.places = answer.places
        due = [
            job for job in self.jobs.values()
            if job.status == "pending" and not job.parked and job.due <= self.now
            and (job.expires is None or job.expires > self.now)
        ]  # fmt: skip
        parked = self.run(self.queue.db.fetch("select id from worker.job_queue where parked"))
        newly = [self.jobs[id] for (id,) in parked if not self.jobs[id].parked]
        looked = [self.jobs[id] for id in answer.ids] + newly
        if len(ahead := [job for job in due if after.ahead(job)]) >= n and not any(job.line for job in looked):
            due = ahead
        passed = [job for job in due if job not in looked]
        assert len(looked) == min(n, len(due))
        assert (answer.places is None) == (len(looked) < n or any(job.line for job in looked))
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
        self.batches.append((process, self.queue.batch))

    def start(self, job: Model, claim: int, process: int) -> None:
        assert claim not in self.claims, "a claim was used twice"
        self.claims.add(claim)
        if job.claim is not None:
            job.old_claims.append(job.claim)
        rescued = job.status == "running"
        job.attempt += not rescued
        job.status, job.started, job.claim, job.process, job.rescued = "running", True, claim, process, rescued
        job.batch = self.queue.batch

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
            job.snoozes += kind == "snoozed"
            if back:  # what is handed back unharmed keeps its place in the line
                job.due = min(job.due, self.now) if kind == "released" else self.now + delay
            self.settled(job, answer[job.id], fields["counted"])
        for job in jobs:
            self.unpark(job.line)

    def settled(self, job: Model, status: str, counted: bool) -> None:
        job.attempt -= not counted
        job.rescued = False
        job.status = status
        if status == "pending":
            job.process = None

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), status=st.sampled_from(["completed", "failed", "pending"]))
    def settle_stale(self, data: st.DataObject, status: str) -> None:
        """Under a claim that is over, that another job has, or that there never was."""
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        current = job.claim if job.status == "running" else None
        claim = data.draw(st.sampled_from(sorted({*job.old_claims, *self.claims, NEVER} - {current})))
        stale = verdict({"id": job.id, "claim": claim}, status, error="stale", keep_steps=False)
        assert self.run(self.queue.settle(stale, me=self.processes[0])) == {}

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def hand_back_a_claim_call(self, data: st.DataObject) -> None:
        """Its answer never arrived, so it says: nothing of it is held, and it is closed for ever."""
        process, batch = data.draw(st.sampled_from(self.batches))
        lost = [job for job in self.running() if (job.process, job.batch) == (process, batch)]
        assert self.run(self.queue.db.fetchval("select worker.unclaim($1, $2)", process, batch)) == len(lost)
        for job in lost:
            job.due = min(job.due, self.now)
            self.settled(job, "cancelled" if job.asked else "pending", counted=False)
        for job in lost:
            self.unpark(job.line)
        dead = process not in self.processes
        assert self.refusal(self.queue.claim(1, me=process, batch=batch)) == ("WK006" if dead else "WK007")

    @rule(which=st.integers(0, 1))
    def beat(self, which: int) -> None:
        process = self.processes[which]
        alive, stops = self.run(self.queue.db.fetchrow("select * from worker.beat($1, 0)", process))
        assert alive
        assert sorted(stops) == sorted(job.claim for job in self.running() if job.process == process and job.asked)
        self.leases[process] = self.now + LEASE

    @rule(which=st.integers(0, 1))
    def look_at_the_others(self, which: int) -> None:
        seen = self.run(self.queue.db.fetch("select id, lapsed from worker.suspects($1)", self.processes[which]))
        other = self.processes[1 - which]
        assert [tuple(row) for row in seen] == [(other, self.leases[other] < self.now)]

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
            job.batch = -1  # the number of a rescue, which no claim call bears
        self.buried.append(dead)
        self.processes[which] = self.run(self.queue.register(lease=LEASE))
        self.leases[self.processes[which]] = self.now + LEASE

    @precondition(lambda self: self.buried)
    @rule(data=st.data())
    def come_back_from_the_dead(self, data: st.DataObject) -> None:
        dead = data.draw(st.sampled_from(self.buried))
        assert tuple(self.run(self.queue.db.fetchrow("select * from worker.beat($1, 0)", dead))) == (False, [])
        assert self.refusal(self.queue.claim(5, me=dead)) == "WK006"
        assert self.run(self.queue.db.fetchval("select worker.mark_dead($1, $2)", dead, self.processes[0])) is False


def explore(dsn: str, examples: int, number: int | None = None, steps: int = 30) -> int:
    """Play so many examples in a database of ours; answers with how many calls that were."""
    loop = asyncio.new_event_loop()
    db = loop.run_until_complete(asyncpg.connect(dsn))
    role = f"tenant_{uuid.uuid4().hex[:8]}"
    loop.run_until_complete(db.execute(f"create role {role} in role worker_tenant"))
    machine: type[RuleBasedStateMachine] = type(
        "Explored", (TheQueue,), {"loop": loop, "queue": Queue(db), "tenant": role}
    )
    try:
        run_state_machine_as_test(
            machine if number is None else seed(number)(machine),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                derandomize="CI" in os.environ and number is None,
                database=None if number is not None else settings.default.database,
                suppress_health_check=list(HealthCheck),
            ),
        )
        return machine.steps
    finally:
        loop.run_until_complete(db.execute(f"reset session authorization; drop role {role}"))
        loop.run_until_complete(db.close())
        loop.close()


def test_any_sequence_of_calls_keeps_the_contract(dsn: str) -> None:
    assert explore(dsn, examples=30) > 100


@pytest.mark.parametrize("number", [1])
def test_a_seed_plays_the_same_calls_again(dsn: str, number: int) -> None:
    assert explore(dsn, examples=3, number=number) == explore(dsn, examples=3, number=number)
