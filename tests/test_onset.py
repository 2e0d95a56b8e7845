"""Something comes in hand, and whoever rests hears of it."""

import asyncio

from worker.onset import Onset


async def test_it_is_heard_by_who_waits():
    onset = Onset()
    waiting = asyncio.create_task(onset.within(600))
    await asyncio.sleep(0)
    onset.set()
    assert await asyncio.wait_for(waiting, 20)
    assert onset.at > 0


async def test_what_does_not_come_is_not_waited_for_for_ever():
    assert not await Onset().within(0.001)


async def test_what_came_before_the_rest_is_past():
    onset = Onset()
    onset.set()
    assert not await onset.within(0.001)
