"""One job from attempt to verdict, with real handlers and a real queue."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.heart import becomes, configured, enqueue, heart, row, until
from worker import executor, solitude
from worker.attempt import End
from worker.context import Context
from worker.errors import CancelRequested, Interrupted, Permanent
from worker.executor import Executor
from worker.metrics import Metrics
from worker.outcome import Cancelled, Completed, Outcome, Retried, Skipped, Snoozed
from worker.report import Reporter
from worker.settler import Settler

TYPES = """
[job.work]
python = "tests.sample_jobs:echo"
timeout = "{timeout}"
retry = {{ first = "1h", max = "1h" }}
"""


class Rig:
    """An executor whose handler each test gives."""

    def __init__(self, parts, config, concurrency=2, connections=None):
        self.parts = parts
        self.metrics = Metrics.of(config, "0")
        self.settler = Settler(parts.queue)
        self.handlers = {}
        self.executor = Executor(
            config.job, self.handlers, self.context,
            settler=self.settler, reporter=Reporter(self.metrics, config.job, 1.0), concurrency=concurrency,
            connections=connections,
        )  # fmt: skip

    def context(self, jobs):
        return Context(jobs, {"k": 1}, self.parts.queue, self.parts.database.steps)

    def count(self, outcome):
        return self.metrics.finished.labels("work", outcome).value


@pytest.fixture
async def rig(dsn, tmp_path):
    async with rigged(dsn, tmp_path) as made:
        yield made


def configured_for(tmp_path, dsn, timeout="5m"):
    return configured(tmp_path, dsn, TYPES.format(timeout=timeout))


@asynccontextmanager
async def rigged(dsn, tmp_path, timeout="5m"):
    async with heart(dsn) as parts:
        made = Rig(parts, configured_for(tmp_path, dsn, timeout))
        task = asyncio.create_task(made.settler.run())
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ran(rig, connection, handler, *, claimed=lambda job: job, **columns):
    """Run one job with this handler; answers with its row."""
    rig.handlers["work"] = handler
    job_id = await enqueue(connection, "work", **columns)
    job = claimed(await rig.parts.one())
    await asyncio.wait_for(rig.executor.execute([job]), 20)
    return await row(connection, job_id)


def answers(value):
    async def handler(context):
        return value

    return handler


def raises(error):
    async def handler(context):
        raise error

    return handler


async def for_ever(context):
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("handler", "after"),
    [
        (answers(None), ("completed", None, "completed")),
        (answers({"a": [1]}), ("completed", None, "completed")),
        (answers(Skipped("gone")), ("skipped", "gone", "skipped")),
        (answers(Snoozed(60)), ("pending", None, "snoozed")),
        (answers(Cancelled("enough")), ("cancelled", "enough", "cancelled")),
        (raises(ValueError("x")), ("pending", None, "retried")),
        (raises(Permanent("x")), ("failed", "permanent", "failed")),
        (raises(SystemExit(3)), ("pending", None, "retried")),
        (raises(KeyboardInterrupt()), ("pending", None, "retried")),
        (raises(asyncio.CancelledError()), ("pending", None, "retried")),
        (raises(GeneratorExit()), ("pending", None, "retried")),
        (raises(RecursionError()), ("pending", None, "retried")),
        (raises(MemoryError()), ("pending", None, "retried")),
    ],
)
async def test_what_a_handler_comes_back_with(rig, connection, handler, after):
    status, reason, counted = after
    found = await ran(rig, connection, handler)
    assert (found["status"], found["finish_reason"]) == (status, reason)
    assert rig.count(counted) == 1


async def test_a_handler_is_given_its_job(rig, connection):
    async def handler(context):
        async with context.connection() as lent:
            seen = await lent.fetchval("select current_setting('application_name')")
        await context.progress("half", done=1)
        return {"payload": context.payload, "settings": context.settings, "attempt": context.job.attempt, "on": seen}

    found = await ran(rig, connection, handler, payload={"a": 1})
    assert found["result"] == '{"on": "worker step", "attempt": 1, "payload": {"a": 1}, "settings": {"k": 1}}'
    assert found["progress"] == '{"done": 1}'


async def test_an_undecodable_payload_is_invalid_whatever_the_handler(rig, connection):
    async def handler(context):
        return context.payload

    found = await ran(rig, connection, handler, claimed=lambda job: job._replace(text="[" * 5000))
    assert (found["status"], found["finish_reason"]) == ("failed", "invalid")


async def test_the_timeout_of_an_attempt_is_an_error_like_others(dsn, tmp_path, connection):
    async with rigged(dsn, tmp_path, timeout="50ms") as rig:
        found = await ran(rig, connection, for_ever)
        assert (found["status"], found["attempt"]) == ("pending", 1)
        assert "AttemptTimeout" in found["errors"]
        last = await ran(rig, connection, for_ever, max_attempts=1)
        assert (last["status"], last["finish_reason"]) == ("failed", "timeout")


async def test_the_deadline_of_the_job_is_final(rig, connection):
    found = await ran(rig, connection, for_ever, claimed=lambda job: job._replace(remaining=0.05))
    assert (found["status"], found["finish_reason"]) == ("failed", "deadline")


async def test_a_job_past_its_deadline_is_not_begun(rig, connection):
    begun = []

    async def handler(context):
        begun.append(context.job.id)

    found = await ran(rig, connection, handler, claimed=lambda job: job._replace(remaining=-1.0))
    assert (found["status"], found["finish_reason"], begun) == ("failed", "deadline", [])


async def started(rig, connection, handler=for_ever):
    """A job under way: the event says that its handler runs."""
    begun = asyncio.Event()

    async def announced(context):
        begun.set()
        return await handler(context)

    rig.handlers["work"] = announced
    await enqueue(connection)
    job = await rig.parts.one()
    task = asyncio.create_task(rig.executor.execute([job]))
    await asyncio.wait_for(begun.wait(), 20)
    return job, task


async def test_a_cancel_ends_the_handler_and_the_job(rig, connection):
    job, task = await started(rig, connection)
    rig.executor.interrupt(job.claim, CancelRequested("by ada"))
    await asyncio.wait_for(task, 20)
    found = await row(connection, job.id)
    assert (found["status"], found["finish_reason"]) == ("cancelled", "by ada")


async def test_an_interrupted_job_is_handed_back_uncounted(rig, connection):
    job, task = await started(rig, connection)
    assert rig.executor.running() == [job.claim]
    rig.executor.interrupt(job.claim, Interrupted("stops"))
    rig.executor.interrupt(job.claim, CancelRequested("too late: the first reason is judged"))
    assert await asyncio.wait_for(task, 20) == End(ran=True, frees=True)
    found = await row(connection, job.id)
    assert (found["status"], found["attempt"], found["errors"]) == ("pending", 0, None)
    assert rig.executor.running() == []


async def test_a_handler_that_cleans_up_is_waited_for(rig, connection):
    cleaned = []

    async def careful(context):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(context.job.id)

    job, task = await started(rig, connection, careful)
    rig.executor.interrupt(job.claim, Interrupted("stops"))
    await asyncio.wait_for(task, 20)
    assert cleaned == [job.id]


async def test_a_handler_that_swallows_its_cancellation_is_given_up(rig, connection, monkeypatch):
    monkeypatch.setattr(executor, "END_SECONDS", 0.05)
    release = asyncio.Event()

    async def stubborn(context):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    job, task = await started(rig, connection, stubborn)
    rig.executor.interrupt(job.claim, CancelRequested("cancelled"))
    await asyncio.wait_for(task, 20)
    assert rig.executor.types() == {job.job_type}  # it may still block the loop, and is named then
    release.set()
    await becomes(lambda: rig.executor.types() == set())
    found = await row(connection, job.id)
    assert (found["status"], found["result"]) == ("cancelled", None)


async def test_a_handler_that_answers_its_cancellation_with_a_result_is_stopped_all_the_same(rig, connection):
    async def answering(context):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done anyway"

    job, task = await started(rig, connection, answering)
    rig.executor.interrupt(job.claim, Interrupted("stops"))
    await asyncio.wait_for(task, 20)
    assert (await row(connection, job.id))["status"] == "pending"


async def test_jobs_beyond_the_slots_wait_and_can_be_released(rig, connection):
    rig.handlers["work"] = for_ever
    for _ in range(4):
        await enqueue(connection)
    jobs = (await rig.parts.queue.claim(4)).jobs
    tasks = [asyncio.create_task(rig.executor.execute([job])) for job in jobs]
    await becomes(lambda: len(rig.executor.waiting()) == 2)
    waiting = jobs[-1]
    rig.executor.interrupt(waiting.claim, Interrupted("stops"))
    await asyncio.wait_for(tasks[-1], 20)
    assert (await row(connection, waiting.id))["status"] == "pending"
    for job in jobs[:3]:
        rig.executor.interrupt(job.claim, Interrupted("stops"))
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    again = (await rig.parts.queue.claim(2)).jobs
    ends = [asyncio.create_task(rig.executor.execute([job])) for job in again]
    assert (len(rig.executor.running()), rig.executor.waiting()) == (2, [])  # every slot is back
    for job in again:
        rig.executor.interrupt(job.claim, Interrupted("stops"))
    await asyncio.wait_for(asyncio.gather(*ends), 20)


async def test_a_job_whose_turn_does_not_come_is_handed_back_and_keeps_its_place(rig, connection, monkeypatch):
    monkeypatch.setattr(executor, "TURN_SECONDS", 0.05)
    rig.handlers["work"] = for_ever
    for _ in range(3):
        await enqueue(connection)
    jobs = (await rig.parts.queue.claim(3)).jobs
    due = (await row(connection, jobs[2].id))["scheduled_at"]
    tasks = [asyncio.create_task(rig.executor.execute([job])) for job in jobs]
    assert await asyncio.wait_for(tasks[2], 20) == End(ran=False, frees=True)
    found = await row(connection, jobs[2].id)
    assert (found["status"], found["attempt"], found["errors"]) == ("pending", 0, None)
    assert found["scheduled_at"] == due
    assert (await rig.parts.one()).id == jobs[2].id  # for whoever has a slot
    for job in jobs[:2]:
        rig.executor.interrupt(job.claim, Interrupted("stops"))
    assert set(await asyncio.wait_for(asyncio.gather(*tasks[:2]), 20)) == {End(ran=True, frees=True)}


async def suspected(rig, connection, count):
    """A job that two processes died with, and others behind it, all of them started."""
    rig.handlers["work"] = for_ever
    for _ in range(count):
        await enqueue(connection)
    jobs = [
        job._replace(rescues=2 * (place == 0)) for place, job in enumerate((await rig.parts.queue.claim(count)).jobs)
    ]
    return jobs, [asyncio.create_task(rig.executor.execute([job])) for job in jobs]


async def ended(rig, jobs, tasks):
    for job in jobs:
        rig.executor.interrupt(job.claim, Interrupted("stops"))
    await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def test_a_suspect_runs_alone_and_says_so_until_others_may_join(rig, connection, monkeypatch):
    monkeypatch.setattr(solitude, "ALONE_SECONDS", 0.1)
    jobs, tasks = await suspected(rig, connection, 2)
    phase = "select phase = $2 from worker.job_queue where id = $1"
    await until(connection, phase, jobs[0].id, solitude.ALONE)
    assert rig.executor.waiting() == [jobs[1].claim]
    await until(connection, phase, jobs[0].id, solitude.IN_COMPANY)
    await becomes(lambda: rig.executor.waiting() == [])
    await ended(rig, jobs, tasks)


async def test_a_suspect_waits_for_the_others_but_not_for_ever(rig, connection, monkeypatch):
    monkeypatch.setattr(executor, "TURN_SECONDS", 0.1)
    jobs, tasks = await suspected(rig, connection, 1)
    await ended(rig, jobs, tasks)
    rig.handlers["work"] = for_ever
    await enqueue(connection)
    (first, suspect) = (await rig.parts.queue.claim(2)).jobs
    suspect = suspect._replace(rescues=3)
    both = [asyncio.create_task(rig.executor.execute([job])) for job in (first, suspect)]
    await becomes(lambda: rig.executor.waiting() == [suspect.claim])
    await becomes(lambda: rig.executor.waiting() == [])
    assert len(rig.executor.running()) == 2
    assert (await row(connection, suspect.id))["phase"] is None
    await ended(rig, [first, suspect], both)


async def test_a_suspect_whose_claim_is_lost_never_begins(rig, connection):
    begun = []

    async def handler(context):
        begun.append(1)

    rig.handlers["work"] = handler
    await enqueue(connection)
    job = (await rig.parts.one())._replace(rescues=2)
    await connection.execute("update worker.job_queue set claim = nextval('worker.claim_seq')")
    await asyncio.wait_for(rig.executor.execute([job]), 20)
    assert begun == []
    assert rig.metrics.lost_claims._value.get() == 1


async def test_a_job_can_be_interrupted_before_its_task_has_begun(rig, connection):
    begun = []

    async def handler(context):
        begun.append(1)

    rig.handlers["work"] = handler
    await enqueue(connection)
    job = await rig.parts.one()
    execution = rig.executor.execute([job])
    rig.executor.interrupt(job.claim, Interrupted("stops"))
    await asyncio.wait_for(execution, 20)
    assert (await row(connection, job.id))["status"] == "pending"
    assert begun == []


async def test_a_lost_claim_is_counted_and_nothing_is_written(rig, connection):
    async def robbed(context):
        await connection.execute("update worker.job_queue set claim = nextval('worker.claim_seq')")

    found = await ran(rig, connection, robbed)
    assert found["status"] == "running"
    assert rig.metrics.lost_claims._value.get() == 1


async def test_a_rescued_job_is_judged_and_settled(rig, connection):
    job_id = await enqueue(connection)
    job = await rig.parts.one()
    await rig.executor.take_over(job._replace(rescues=1))
    found = await row(connection, job_id)
    assert (found["status"], found["attempt"]) == ("pending", 1)
    assert "LeaseExpired" in found["errors"]
    again = await rig.parts.one()
    await rig.executor.take_over(again._replace(rescues=4))
    found = await row(connection, job_id)
    assert (found["status"], found["finish_reason"]) == ("failed", "poison")


async def test_a_rescued_job_of_a_type_that_is_not_ours_goes_back(rig, connection):
    job_id = await enqueue(connection)
    job = await rig.parts.one()
    await rig.executor.take_over(job._replace(job_type="somebody_elses", rescues=9))
    assert (await row(connection, job_id))["status"] == "pending"


CALLS = """
[job.call]
http = "http://127.0.0.1:9/"
coalesce = {{ key = "cache", unite = ["tags"] }}
timeout = "{timeout}"
"""


@pytest.fixture
async def calling(dsn, tmp_path):
    """An executor for coalesced calls, and the jobs of one call."""
    async with heart(dsn) as parts:
        config = configured(tmp_path, dsn, CALLS.format(timeout="5m"))
        made = Rig(parts, config)
        task = asyncio.create_task(made.settler.run())
        await parts.queue.declare(config.declarations())
        parts.queue.types[:] = ["call"]
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def one_call(rig, connection, rows):
    for number in range(rows):
        await enqueue(connection, "call", {"tags": [number]})
    (call,) = rig.executor.calls((await rig.parts.queue.claim(1)).jobs)
    return call


async def test_rows_of_one_key_make_one_call_and_one_outcome_serves_all(calling, connection):
    seen = []

    async def handler(context):
        seen.append([job.id for job in context.jobs])
        return {"status": 200}

    calling.handlers["call"] = handler
    call = await one_call(calling, connection, 3)
    await asyncio.wait_for(calling.executor.execute(call), 20)
    assert seen == [[job.id for job in call]]
    assert [(await row(connection, job.id))["status"] for job in call] == ["completed"] * 3


async def test_a_call_may_end_differently_for_each_of_its_jobs(calling, connection):
    async def handler(context):
        return [Completed(), Retried("207", 60.0, payload={"tags": ["left"]}), Skipped("none")]

    calling.handlers["call"] = handler
    call = await one_call(calling, connection, 3)
    await asyncio.wait_for(calling.executor.execute(call), 20)
    rows = [await row(connection, job.id) for job in call]
    assert [each["status"] for each in rows] == ["completed", "pending", "skipped"]
    assert rows[1]["payload"] == '{"tags": ["left"]}'


async def test_a_cancel_of_the_oldest_hands_the_others_back(calling, connection):
    began = asyncio.Event()

    async def handler(context):
        began.set()
        await asyncio.Event().wait()

    calling.handlers["call"] = handler
    call = await one_call(calling, connection, 2)
    task = asyncio.create_task(calling.executor.execute(call))
    await asyncio.wait_for(began.wait(), 20)
    calling.executor.interrupt(call[0].claim, CancelRequested("enough"))
    await asyncio.wait_for(task, 20)
    rows = [await row(connection, job.id) for job in call]
    assert [(each["status"], each["attempt"]) for each in rows] == [("cancelled", 1), ("pending", 0)]


async def test_a_source_that_is_off_is_skipped_without_its_handler(dsn, tmp_path, connection):
    async with heart(dsn) as parts:
        types = TYPES.format(timeout="5m") + "sources = { match = false, admin = true }\n"
        made = Rig(parts, configured(tmp_path, dsn, types))
        task = asyncio.create_task(made.settler.run())
        off = await ran(made, connection, lambda context: pytest.fail("it ran"), source="match")
        on = await ran(made, connection, echo, source="admin")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (off["status"], off["finish_reason"]) == ("skipped", "source_off")
    assert on["status"] == "completed"


async def test_what_a_handler_enqueues_counts_when_it_went_well(rig, connection):
    async def well(context):
        context.enqueue("child", {"n": 1}, priority=7)

    async def badly(context):
        context.enqueue("child", {"n": 2})
        raise ValueError("no")

    parent = await ran(rig, connection, well)
    await ran(rig, connection, badly)
    children = await connection.fetch(
        "select parent_id, priority, payload from worker.job_queue where job_type = 'child'"
    )
    assert [tuple(child) for child in children] == [(parent["id"], 7, '{"n": 1}')]


async def test_an_outcome_of_the_authors_own_making_strands_no_row(rig, connection):
    class Mine(Outcome):
        pass

    async def handler(context):
        return Mine()

    ended = await ran(rig, connection, handler)
    assert (ended["status"], ended["finish_reason"]) == ("failed", "invalid")


async def test_an_enqueue_that_cannot_be_written_fails_at_the_authors_line(rig, connection):
    async def handler(context):
        context.enqueue("child", {}, prority=1)

    ended = await ran(rig, connection, handler)
    assert "unknown prority" in ended["errors"]


async def echo(context):
    return "ran"
