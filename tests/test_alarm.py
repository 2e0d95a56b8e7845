"""One timer for many deadlines."""

import asyncio
import time

from worker.alarm import Alarm


class Rung:
    """An alarm that notes when it rang, and asks for what it is told to ask for."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.next: list[float] = []
        self.changed = asyncio.Event()

    def __call__(self, now: float) -> float:
        self.times.append(now)
        self.changed.set()
        return self.next.pop(0) if self.next else float("inf")


async def test_it_rings_at_the_earliest_time_and_not_before() -> None:
    rung = Rung()
    alarm = Alarm(rung)
    now = time.monotonic()
    for later in (30.0, 0.02, 60.0):
        alarm.at(now + later)
    async with asyncio.timeout(10):
        await rung.changed.wait()
    assert len(rung.times) == 1


async def test_it_goes_on_with_what_it_is_told() -> None:
    rung = Rung()
    alarm = Alarm(rung)
    now = time.monotonic()
    rung.next = [now + 0.02, now + 0.03]
    alarm.at(now)
    async with asyncio.timeout(10):
        while len(rung.times) < 3:
            rung.changed.clear()
            await rung.changed.wait()
    assert rung.times == sorted(rung.times)


async def test_infinity_is_never() -> None:
    rung = Rung()
    alarm = Alarm(rung)
    alarm.at(float("inf"))
    await asyncio.sleep(0)
    assert rung.times == []
