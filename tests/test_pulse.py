"""Whether the process is well, without asking anybody."""

import asyncio
import time
from types import SimpleNamespace

import pytest
import structlog

from tests.heart import becomes
from worker import pulse
from worker.metrics import Metrics
from worker.onset import Onset
from worker.pulse import Pulse, Readiness, Rounds


def lag(metrics: Metrics, part: str) -> float:
    return metrics.registry.get_sample_value(f"worker_loop_lag_seconds_{part}") or 0.0


def test_ready_only_while_something_is_watched_and_all_of_it_is_well():
    said, readiness = [True, True], Readiness()
    assert not readiness.ready
    readiness.watch(lambda: said[0], lambda: said[1])
    assert readiness.ready
    said[1] = False
    assert not readiness.ready
    said[1] = True
    assert readiness.ready
    readiness.end()
    assert not readiness.ready


def test_claims_go_round_or_there_is_no_room(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    poller = SimpleNamespace(looked_at=1000.0, in_hand=0)
    rounds = Rounds(poller, concurrency=2, seconds=20)
    assert rounds.lately()
    clock[0] = 1021.0
    assert not rounds.lately()
    poller.in_hand = 2  # full: nobody looks, and nobody should
    assert rounds.lately()
    clock[0] = 2000.0
    rounds.note()
    poller.in_hand = 1  # a slot is free this very moment, the next claim is on its way
    assert rounds.lately()
    clock[0] = 2021.0
    assert not rounds.lately()
    poller.looked_at = 2021.0
    assert rounds.lately()


async def test_a_late_loop_names_who_ran():
    running, ended = {"slow"}, {"ended"}
    measured = Pulse(Metrics(), lambda: running, ended)
    with structlog.testing.capture_logs() as lines:
        measured.note(0.49)
        measured.note(0.75)
    assert [(line["event"], line["seconds"], line["job_types"]) for line in lines] == [
        ("loop.blocked", 0.75, ["ended", "slow"])
    ]
    assert measured.types() == ["ended", "slow"]  # until the next look at the clock


@pytest.mark.parametrize("running", [set(), {"slow"}])
async def test_it_looks_at_the_clock_for_ever_and_forgets_who_ended(monkeypatch, running):
    monkeypatch.setattr(pulse, "TICK", 0.001)
    monkeypatch.setattr(pulse, "IDLE_TICK", 0.001)
    monkeypatch.setattr(pulse, "STILL_TICK", 0.001)
    metrics = Metrics()
    beats: list[int] = []
    measured = Pulse(metrics, lambda: running, {"ended"}, lambda: beats.append(1))
    task = asyncio.create_task(measured.run())
    try:
        await becomes(lambda: len(beats) >= 3)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert lag(metrics, "count") >= 3
    assert measured.types() == sorted(running)


async def test_where_nothing_is_in_hand_it_looks_seldom_once_what_ended_is_summed_up():
    waits, ended = [], {"ended"}
    measured = Pulse(Metrics(), set, ended, lambda: ended.update(["late"] if len(waits) == 2 else []))

    async def waited(seconds):
        waits.append(seconds)
        await asyncio.sleep(0)
        return 0.0

    measured._idle = waited
    task = asyncio.create_task(measured.run())
    await becomes(lambda: len(waits) >= 4)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # The second look saw that something had ended meanwhile, so the third comes soon again.
    assert waits[:4] == [pulse.IDLE_TICK, pulse.STILL_TICK, pulse.IDLE_TICK, pulse.STILL_TICK]


async def test_the_first_job_after_a_rest_is_named_when_it_blocks_at_once(monkeypatch):
    monkeypatch.setattr(pulse, "IDLE_TICK", 600)
    monkeypatch.setattr(pulse, "BLOCKED", 0.05)
    begun, running = Onset(), set()
    measured = Pulse(Metrics(), lambda: running, set(), begun=begun)
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(measured.run())
        await asyncio.sleep(0)
        running.add("rude")
        begun.set()
        time.sleep(0.1)  # noqa: ASYNC251 - the fault that is to be found
        await becomes(lambda: lines)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [(line["event"], line["job_types"]) for line in lines] == [("loop.blocked", ["rude"])]
