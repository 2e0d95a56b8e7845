"""When a process must stop its own jobs, on a clock that goes on while the machine sleeps."""

import asyncio

import pytest

from tests.heart import becomes
from worker import fence
from worker.fence import ASK_SECONDS, Fence


@pytest.fixture
def slept(monkeypatch):
    """Seconds that the machine slept: timers do not count them."""
    seconds, now = [0.0], fence.now
    monkeypatch.setattr(fence, "now", lambda: now() + seconds[0])
    return seconds


@pytest.fixture
async def made():
    told = []
    made = Fence(0.1, lambda: told.append(made.age))
    made.told = told
    made.begin()
    yield made
    made.end()


async def test_without_a_confirmed_beat_it_tells_once(made):
    await becomes(lambda: made.told)
    assert made.told[0] > 0.1
    made.awake()
    await asyncio.sleep(0.2)
    assert len(made.told) == 1


async def test_a_confirmed_beat_ends_it_and_it_may_come_again(made):
    await becomes(lambda: made.told)
    assert made.confirm(fence.now())
    assert not made.confirm(fence.now())
    await becomes(lambda: len(made.told) == 2)


async def test_a_beat_counts_from_when_it_was_sent(made):
    made.confirm(fence.now() - 0.2)
    assert made.age >= 0.2
    await becomes(lambda: made.told)


async def test_confirmed_in_time_it_does_not_wake_the_loop(made):
    for _ in range(4):
        await asyncio.sleep(0.05)
        due = made._timer.when()
        assert not made.confirm(fence.now())
        assert made._timer.when() > due
    assert made.told == []


async def test_a_machine_that_slept_is_found_out_by_the_next_turn_of_the_loop(slept, monkeypatch):
    told = []
    made = Fence(60, lambda: told.append(1))
    made.begin()
    made.awake()
    assert made._timer.when() - asyncio.get_running_loop().time() > 50
    slept[0] = 100
    made.awake()
    assert made._timer.when() - asyncio.get_running_loop().time() <= ASK_SECONDS
    await becomes(lambda: told)
    made.end()


async def test_after_a_stall_the_beat_may_ask_first(slept):
    told = []
    made = Fence(60, lambda: told.append(1))
    made.begin()
    slept[0] = 100
    made._look()  # as a timer that fires late
    assert told == []
    assert not made.confirm(fence.now())
    made._look()
    assert told == []
    made.end()
