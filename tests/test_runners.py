"""Handlers that come back at once share a task, those that wait do not; and nobody sees what another left behind."""

import asyncio
from contextvars import ContextVar

import pytest

from tests.heart import becomes, job
from worker import runners
from worker.attempt import Attempt
from worker.errors import JobError
from worker.runners import Runners

LEFT = ContextVar("left behind", default=None)


class Ground:
    """Runners of handlers by job type, and what they did: attempts begin by the number of their job."""

    def __init__(self, **handlers):
        self.handlers = handlers
        self.tasks, self.told, self.seen = {}, {}, {}  # by job: its task, what came, the variable where that was told
        self.order = []
        self.runners = Runners(self._call, self._over)
        self.then = {}  # by job: the attempt that begins when it is over

    def attempt(self, number, job_type="work"):
        made = Attempt([job(id=number, claim=number, job_type=job_type)], "python", lambda end: None)
        made.begin(None)
        return made

    def begin(self, *numbers, job_type="work"):
        attempts = [self.attempt(number, job_type) for number in numbers]
        for each in attempts:
            self.runners.begin(each)
        return attempts

    async def all_told(self, jobs):
        await becomes(lambda: len(self.told) >= jobs)

    async def _call(self, attempt):
        number = attempt.jobs[0].id
        self.order.append(number)
        self.tasks[number] = asyncio.current_task()
        try:
            return await self.handlers[attempt.jobs[0].job_type](number)
        except asyncio.CancelledError:
            return "cancelled"

    def _over(self, attempt, came):
        number = attempt.jobs[0].id
        attempt.over = True
        self.told[number], self.seen[number] = came, LEFT.get()
        if number in self.then:
            self.runners.begin(self.then[number])


async def at_once(number):
    return number * 10


def of_one_task(ground):
    return len(set(ground.tasks.values())) == 1


async def test_handlers_that_come_back_at_once_run_in_one_task_in_their_order():
    ground = Ground(work=at_once)
    ground.begin(*range(1, 51))
    assert ground.order == []  # not within the call
    await ground.all_told(50)
    assert ground.order == list(range(1, 51))
    assert of_one_task(ground)
    assert ground.told == {number: number * 10 for number in range(1, 51)}


async def test_the_task_is_named_after_the_job_that_runs():
    async def named(number):
        return asyncio.current_task().get_name()

    async def waits(number):
        await asyncio.sleep(0)
        return asyncio.current_task().get_name()

    ground = Ground(work=named, slow=waits)
    ground.begin(1, 2)
    ground.begin(3, 4, job_type="slow")
    await ground.all_told(4)
    assert ground.told == {number: f"job {number}" for number in range(1, 5)}


async def test_who_begins_as_one_ends_goes_on_in_its_task():
    ground = Ground(work=at_once)
    ground.then = {1: ground.attempt(2), 2: ground.attempt(3)}
    ground.begin(1)
    await ground.all_told(3)
    assert of_one_task(ground)


async def test_behind_one_that_waits_all_others_run_at_once():
    gate = asyncio.Event()

    async def waits(number):
        await gate.wait()

    ground = Ground(work=waits)
    ground.begin(*range(1, 21))
    await becomes(lambda: len(ground.order) == 20)
    assert ground.told == {}
    assert len(set(ground.tasks.values())) == 20
    gate.set()
    await ground.all_told(20)


async def test_one_that_waits_holds_up_no_other_type():
    gate = asyncio.Event()

    async def waits(number):
        await gate.wait()

    ground = Ground(slow=waits, work=at_once)
    ground.begin(1, job_type="slow")
    ground.begin(2, 3)
    await ground.all_told(2)
    assert ground.tasks[2] is ground.tasks[3] is not ground.tasks[1]
    ground.begin(4, job_type="slow")  # known to wait by now: it need not be found out again
    ground.begin(5)
    await ground.all_told(3)
    gate.set()
    await ground.all_told(5)


async def test_a_type_that_waited_shares_again_once_its_time_is_over(monkeypatch):
    monkeypatch.setattr(runners, "WAITS_SECONDS", 0.0)
    waiting = True

    async def sometimes(number):
        if waiting:
            await asyncio.sleep(0)

    ground = Ground(work=sometimes)
    ground.begin(1, 2)
    await ground.all_told(2)
    waiting = False
    ground.begin(3, 4)
    await ground.all_told(4)
    assert ground.tasks[3] is ground.tasks[4]


async def test_the_loop_has_its_turn_between_handlers_that_compute(monkeypatch):
    monkeypatch.setattr(runners, "BURST_SECONDS", 0.0)
    turns = 0

    async def counts(number):
        return turns

    ground = Ground(work=counts)
    ground.begin(*range(1, 11))
    while len(ground.told) < 10:
        turns += 1
        await asyncio.sleep(0)
    assert sorted(ground.told.values()) == list(ground.told.values())
    assert len(set(ground.told.values())) == 10  # each another turn


async def test_a_variable_that_a_handler_left_is_seen_by_nobody():
    async def leaves(number):
        before = LEFT.get()
        LEFT.set(number)
        return before

    ground = Ground(work=leaves)
    ground.begin(1, 2, 3)
    await ground.all_told(3)
    assert ground.told == {1: None, 2: None, 3: None}
    assert ground.seen == {1: None, 2: None, 3: None}  # nor where it is told


async def test_a_variable_put_back_leaves_the_task_as_it_was():
    async def tidy(number):
        LEFT.reset(LEFT.set(number))

    ground = Ground(work=tidy)
    ground.begin(1, 2, 3)
    await ground.all_told(3)
    assert of_one_task(ground)


async def test_a_variable_that_cannot_be_compared_ends_the_task():
    class Odd:
        def __eq__(self, other):
            raise ValueError("neither equal nor unequal")

        __hash__ = None

    LEFT.set(Odd())  # in what the task is made with
    ground = Ground(work=tidy_odd)
    ground.begin(1, 2)
    await ground.all_told(2)
    assert ground.told == {1: None, 2: None}
    assert not of_one_task(ground)


async def tidy_odd(number):
    LEFT.set(type(LEFT.get())())


async def test_a_handler_that_cancels_itself_takes_no_other_along():
    async def cancels(number):
        if number == 1:
            asyncio.current_task().cancel()  # and comes back without having waited
        return number

    ground = Ground(work=cancels)
    ground.begin(1, 2)
    await ground.all_told(2)
    assert isinstance(ground.told[1], JobError)
    assert "cancelled from within" in str(ground.told[1])
    assert ground.told[2] == 2
    assert ground.tasks[2].cancelling() == 0


async def test_a_handler_that_swallowed_a_cancellation_does_not_hand_its_task_on():
    ground = None

    async def swallows(number):
        if number > 1:
            return asyncio.current_task().cancelling()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ground.runners.begin(ground.attempt(2, "other"))
            return "swallowed"

    ground = Ground(work=swallows, other=swallows)
    (first,) = ground.begin(1)
    await becomes(lambda: first.task is not None)
    first.task.cancel()
    await ground.all_told(2)
    assert ground.told == {1: "swallowed", 2: 0}


async def test_one_that_is_over_before_its_turn_never_runs():
    ground = Ground(work=at_once)
    _, second, _ = ground.begin(1, 2, 3)
    second.over = True
    await ground.all_told(2)
    assert ground.order == [1, 3]


async def test_what_telling_raises_strands_nobody():
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    ground = Ground(work=at_once)
    over = ground.runners._over

    def fails(attempt, came):
        over(attempt, came)
        if attempt.jobs[0].id == 1:
            raise ZeroDivisionError

    ground.runners._over = fails
    ground.begin(1, 2, 3)
    await ground.all_told(3)
    await becomes(lambda: errors)
    assert [type(error) for error in errors] == [ZeroDivisionError]


@pytest.mark.parametrize("jobs", [1, 7])
async def test_no_task_is_left_when_all_is_done(jobs):
    ground = Ground(work=at_once)
    before = asyncio.all_tasks()
    ground.begin(*range(jobs))
    await ground.all_told(jobs)
    await becomes(lambda: asyncio.all_tasks() == before)
